//! The node and Debian's nginx side by side: the same objects, and thousands of requests for parts,
//! under conditions and with codings. What is answered differently on purpose is in `DIFFERENCES`
//! and `FIELDS`, each with its reason; everything else must be the same.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    DEADLINE, Data, Dice, GROUP, Node, Object, curl::Curl, http::Peer, http::Response, object,
    timed,
};

const REQUESTS: usize = 6000;

/// Beyond it the answer is all of the content.
const PARTS_MAX: usize = 16;

/// nginx serving a directory on a port of its own. It is killed when it is dropped.
struct Nginx {
    child: Child,
    at: SocketAddr,
}

impl Nginx {
    fn start(folder: &Path) -> Nginx {
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let at = free.local_addr().expect("it has an address");
        drop(free);
        let dir = folder.to_str().expect("UTF-8");
        let conf = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/log;
            events {{}}
            http {{
                access_log off; default_type application/octet-stream;
                keepalive_requests 1000000;
                client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
                scgi_temp_path {dir}/scgi;
                server {{ listen {at}; root {dir}/root; }}
            }}"
        );
        fs::write(folder.join("conf"), conf).expect("it can be written");
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("conf"));
        nginx.arg("-e").arg(folder.join("log")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = nginx.spawn().unwrap_or_else(|error| {
            panic!("this test needs nginx (apt-get install nginx-light): {error}")
        });
        let (nginx, until) = (Nginx { child, at }, Instant::now() + DEADLINE);
        while TcpStream::connect(at).is_err() {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "nginx does not start: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        nginx
    }

    fn connect(&self) -> Peer {
        Peer::new(timed(TcpStream::connect(self.at).expect("nginx listens")))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An entity tag, as the one who is asked knows it: the servers have tags of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tag {
    Own,
    Weak,
    Other,
    Star,
    /// What is no tag: a date.
    Date,
}

impl Tag {
    fn text(self, own: &str) -> String {
        match self {
            Tag::Own => own.to_owned(),
            Tag::Weak => format!("W/{own}"),
            Tag::Other => "\"another,of-nothing\"".to_owned(),
            Tag::Star => "*".to_owned(),
            Tag::Date => "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        }
    }
}

/// One member of a list of ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Member {
    Between(u64, u64),
    From(u64),
    Suffix(u64),
    /// Ends beyond any number.
    Huge(u64),
    /// No range.
    Malformed(&'static str),
}

impl Member {
    fn text(self) -> String {
        match self {
            Member::Between(first, last) => format!("{first}-{last}"),
            Member::From(first) => format!("{first}-"),
            Member::Suffix(len) => format!("-{len}"),
            Member::Huge(first) => format!("{first}-99999999999999999999999"),
            Member::Malformed(text) => text.to_owned(),
        }
    }

    /// First byte and end; `None` where no byte is meant.
    fn bytes(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Member::Between(first, last) => (first, size.min(last + 1)),
            Member::From(first) | Member::Huge(first) => (first, size),
            Member::Suffix(len) => (size.saturating_sub(len), size),
            Member::Malformed(_) => return None,
        };
        (start < end).then_some((start, end))
    }

    fn is_malformed(self) -> bool {
        matches!(self, Member::Between(first, last) if last < first)
            || matches!(self, Member::Malformed(_))
    }
}

/// One request, for either server.
#[derive(Clone, Debug)]
struct Case {
    method: &'static str,
    unit: &'static str,
    /// Of each `Range` line.
    ranges: Vec<Vec<Member>>,
    if_range: Option<Tag>,
    /// The members of each line.
    none_match: Vec<Vec<Tag>>,
    if_match: Vec<Vec<Tag>>,
    accept: Option<&'static str>,
}

fn pick<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.below(of.len() as u64) as usize]
}

fn position(dice: &mut Dice, size: u64) -> u64 {
    match dice.below(8) {
        0 => dice.below(3),
        1 => size.saturating_sub(dice.below(3)),
        2 => size + dice.below(5),
        3 => (GROUP as u64 - 2) + dice.below(4),
        _ => dice.below(size + 1),
    }
}

fn member(dice: &mut Dice, size: u64) -> Member {
    let at = position(dice, size);
    match dice.below(100) {
        0..60 => Member::Between(at, at + dice.below(200)),
        60..70 => Member::Between(at, at.max(position(dice, size))),
        70..74 => Member::Between(at, position(dice, size)),
        74..84 => Member::From(at),
        84..94 => Member::Suffix(size.saturating_sub(at)),
        94..97 => Member::Huge(at),
        _ => {
            let bad = ["x", "-", "1-x", "--1", "1", "+1-2", "1-2-3", "1 - 2", "0x1-2", "1;2"];
            Member::Malformed(pick(dice, &bad))
        }
    }
}

fn tags(dice: &mut Dice, odds: u64) -> Vec<Vec<Tag>> {
    if dice.below(odds) > 0 {
        return Vec::new();
    }
    let list = |dice: &mut Dice| match dice.below(5) {
        0 => vec![Tag::Star],
        _ => (0..=dice.below(3)).map(|_| pick(dice, &[Tag::Own, Tag::Weak, Tag::Other])).collect(),
    };
    (0..=u64::from(dice.below(6) == 0)).map(|_| list(dice)).collect()
}

impl Case {
    fn new(dice: &mut Dice, size: u64) -> Case {
        let method = if dice.below(8) == 0 { "HEAD" } else { "GET" };
        let unit = pick(dice, &["bytes=", "bytes=", "bytes=", "bytes=", "Bytes=", "lines="]);
        let unit = if dice.below(40) == 0 { "bytes =" } else { unit };
        let count = if dice.coin() { 1 } else { 1 + dice.below(6) };
        let many = (dice.below(30) == 0).then(|| 12 + dice.below(12));
        let line = |dice: &mut Dice| match many {
            // Small ones that do not touch.
            Some(many) => (0..many).map(|at| Member::Between(at * 7, at * 7 + 3)).collect(),
            None => (0..count).map(|_| member(dice, size)).collect(),
        };
        let lines = if dice.below(5) == 0 { 0 } else { 1 + usize::from(dice.below(50) == 0) };
        let ranges = (0..lines).map(|_| line(dice)).collect();
        let all = [Tag::Own, Tag::Own, Tag::Own, Tag::Weak, Tag::Other, Tag::Date];
        let if_range = (dice.below(4) == 0).then(|| pick(dice, &all));
        let accepts = [
            "",
            "gzip",
            "br;q=1.0, gzip;q=0.8",
            "identity",
            "identity;q=0",
            "*;q=0",
            "gzip, *;q=0.0",
            "*;q=0, identity;q=0.5",
            "identity;q=0.001",
        ];
        let accept = (dice.below(6) == 0).then(|| pick(dice, &accepts));
        let (none_match, if_match) = (tags(dice, 8), tags(dice, 12));
        Case { method, unit, ranges, if_range, none_match, if_match, accept }
    }

    fn text(&self, path: &str, tag: &str) -> String {
        let mut text = format!("{} {path} HTTP/1.1\r\nHost: localhost\r\n", self.method);
        for members in &self.ranges {
            let members: Vec<String> = members.iter().map(|member| member.text()).collect();
            text += &format!("Range: {}{}\r\n", self.unit, members.join(", "));
        }
        for (name, lines) in [("If-None-Match", &self.none_match), ("If-Match", &self.if_match)] {
            for list in lines {
                let list: Vec<String> = list.iter().map(|member| member.text(tag)).collect();
                text += &format!("{name}: {}\r\n", list.join(", "));
            }
        }
        let if_range = self.if_range.map(|member| format!("If-Range: {}\r\n", member.text(tag)));
        let accept = self.accept.map(|value| format!("Accept-Encoding: {value}\r\n"));
        text + &if_range.unwrap_or_default() + &accept.unwrap_or_default() + "\r\n"
    }

    fn excludes_identity(&self) -> bool {
        matches!(self.accept, Some("identity;q=0" | "*;q=0" | "gzip, *;q=0.0"))
    }

    fn members(&self) -> &[Member] {
        self.ranges.first().map_or(&[], Vec::as_slice)
    }

    fn is_malformed(&self) -> bool {
        self.members().iter().any(|member| member.is_malformed())
    }

    /// Whether the ranges decide what is sent, if anything is.
    fn ranges_count(&self) -> bool {
        let unit = self.unit != "lines=" && self.ranges.len() == 1;
        self.method == "GET" && unit && matches!(self.if_range, None | Some(Tag::Own))
    }

    /// The ranges that are left when those that touch are one, in their order.
    fn joined(&self, size: u64) -> Vec<(u64, u64)> {
        let mut marked = vec![false; size as usize + 1];
        let bytes = || self.members().iter().filter_map(|member| member.bytes(size));
        bytes().for_each(|(start, end)| marked[start as usize..end as usize].fill(true));
        let mut runs = Vec::new();
        for (first, _) in bytes() {
            let before = marked[..first as usize].iter().rev().take_while(|is| **is).count();
            let behind = marked[first as usize..].iter().take_while(|is| **is).count();
            let run = (first - before as u64, first + behind as u64);
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        runs
    }

    /// Bytes of all members together.
    fn sum(&self, size: u64) -> u64 {
        self.members().iter().filter_map(|member| member.bytes(size)).map(|(a, b)| b - a).sum()
    }

    /// What the node is to answer, by the rules that the entries of `DIFFERENCES` name.
    fn model(&self, object: &Object) -> Seen {
        let size = object.bytes.len() as u64;
        let any = |lines: &[Vec<Tag>], of: &[Tag]| lines.iter().flatten().any(|t| of.contains(t));
        if self.excludes_identity() {
            return Seen::error(406, None);
        }
        if !self.if_match.is_empty() && !any(&self.if_match, &[Tag::Own, Tag::Star]) {
            return Seen::error(412, None);
        }
        if any(&self.none_match, &[Tag::Own, Tag::Weak, Tag::Star]) {
            return Seen::not_modified();
        }
        let suffix_of_nothing =
            size == 0 && self.members().iter().any(|m| matches!(m, Member::Suffix(1..)));
        let ranges = self.joined(size);
        if !self.ranges_count() || self.is_malformed() || suffix_of_nothing {
            return Seen::whole(self, object);
        }
        match ranges[..] {
            [] => Seen::error(416, Some(format!("bytes */{size}"))),
            _ if ranges.len() > PARTS_MAX => Seen::whole(self, object),
            _ => Seen::parts(&ranges, object),
        }
    }
}

/// What is compared of an answer: of errors neither the content nor what describes it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    status: u16,
    content_range: Option<String>,
    content_length: Option<String>,
    /// What each part says that it is, and its bytes; of one part, or of all, it says nothing.
    content: Vec<(String, Vec<u8>)>,
    fields: BTreeSet<String>,
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Seen {
    fn of(answer: &Response) -> Seen {
        let field = |name: &str| answer.field(name).map(str::to_owned);
        let mut fields: BTreeSet<String> =
            answer.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        FIELDS.iter().for_each(|(name, _)| _ = fields.remove(*name));
        let mut seen = Seen {
            status: answer.status,
            content_range: field("content-range"),
            content_length: field("content-length"),
            content: vec![(String::new(), answer.body.clone())],
            fields,
        };
        let kind = answer.field("content-type").unwrap_or_default();
        if answer.status >= 400 {
            (seen.content, seen.content_length) = (Vec::new(), None);
            seen.fields.retain(|name| name == "content-range");
        } else if kind.starts_with("multipart/byteranges") && !answer.body.is_empty() {
            // The boundaries differ, and with them the length.
            (seen.content, seen.content_length) = (answer.parts(), None);
        }
        seen
    }

    fn error(status: u16, content_range: Option<String>) -> Seen {
        let fields = if content_range.is_some() { names(&["content-range"]) } else { names(&[]) };
        Seen { status, content_range, content_length: None, content: Vec::new(), fields }
    }

    fn not_modified() -> Seen {
        let (content, fields) =
            (vec![(String::new(), Vec::new())], names(&["date", "etag", "server"]));
        Seen { status: 304, content_range: None, content_length: None, content, fields }
    }

    fn content(status: u16, len: usize, bytes: Vec<u8>) -> Seen {
        let fields = names(&["content-length", "content-type", "date", "etag", "server"]);
        let content = vec![(String::new(), bytes)];
        Seen { status, content_range: None, content_length: Some(len.to_string()), content, fields }
    }

    fn whole(case: &Case, object: &Object) -> Seen {
        let bytes = if case.method == "HEAD" { Vec::new() } else { object.bytes.clone() };
        Seen::content(200, object.bytes.len(), bytes)
    }

    fn parts(ranges: &[(u64, u64)], object: &Object) -> Seen {
        let parts: Vec<(String, Vec<u8>)> = ranges
            .iter()
            .map(|(start, end)| {
                let bytes = object.bytes[*start as usize..*end as usize].to_vec();
                (format!("bytes {start}-{}/{}", end - 1, object.bytes.len()), bytes)
            })
            .collect();
        let mut seen = Seen::content(206, 0, Vec::new());
        if let [(range, bytes)] = &parts[..] {
            seen = Seen::content(206, bytes.len(), bytes.clone());
            seen.content_range = Some(range.clone());
            seen.fields.insert("content-range".to_owned());
        } else {
            (seen.content, seen.content_length) = (parts, None);
        }
        seen
    }
}

/// Fields that only one of the two sends, or not with every answer, and why.
const FIELDS: &[(&str, &str)] = &[
    ("x-corr-id", "the node names every request"),
    ("cache-control", "what has an address never changes; nginx is not told"),
    ("x-content-type-options", "the content is that of strangers; nginx is not told"),
    ("last-modified", "a file has a date, and an object has none (RFC 9110 §8.8.2.1)"),
    ("connection", "nginx says keep-alive, which HTTP/1.1 does by itself (RFC 9112 §9.3)"),
    ("accept-ranges", "nginx leaves it out of a 206; RFC 9110 §15.3.7 does not ask for it"),
];

/// Whether a difference is meant, by what nginx answered with this status.
type Applies = fn(&Case, u64, u16) -> bool;

/// What the node answers differently, as `Case::model` has it, and why.
const DIFFERENCES: &[(&str, Applies)] = &[
    ("RFC 9110 §12.5.3: who excludes the only form that there is gets 406", |case, _, _| {
        case.excludes_identity()
    }),
    (
        "RFC 9110 §5.3: the lines of a list are one list; nginx answers 400 to a second one",
        |case, _, _| case.none_match.len() > 1 || case.if_match.len() > 1,
    ),
    ("RFC 9110 §14.2: Range has a meaning for GET alone", |case, _, status| {
        case.method == "HEAD" && matches!(status, 206 | 416)
    }),
    (
        "two Range lines contradict each other and are ignored; nginx reads the first",
        |case, _, status| case.ranges.len() > 1 && matches!(status, 206 | 416),
    ),
    (
        "RFC 9110 §14.2: a field that is malformed is ignored; nginx answers 416 or the rest of it",
        |case, _, status| case.is_malformed() && matches!(status, 206 | 416),
    ),
    (
        "a number may be larger than any size (RFC 9110 §14.1.2); nginx answers 416",
        |case, _, status| {
            status == 416 && case.members().iter().any(|m| matches!(m, Member::Huge(_)))
        },
    ),
    (
        "RFC 9110 §14.1.2: nothing lies in an empty object, so 416; nginx answers 200",
        |case, size, status| size == 0 && status == 200 && case.ranges_count(),
    ),
    ("white space before the = is forgiven; nginx takes it for another unit", |case, _, status| {
        case.unit == "bytes =" && status == 200 && case.ranges_count()
    }),
    (
        "RFC 9110 §14.2: more than 16 parts are more than an honest client needs",
        |case, size, status| status == 206 && case.joined(size).len() > PARTS_MAX,
    ),
    (
        "RFC 9110 §15.3.7.2: ranges that touch are sent as one; nginx sends bytes twice, or all of \
         the content when that is shorter",
        |case, size, status| {
            let all: Vec<_> = case.members().iter().filter_map(|m| m.bytes(size)).collect();
            let longer = status == 200 && case.sum(size) > size;
            case.ranges_count() && (longer || status == 206) && case.joined(size) != all
        },
    ),
];

/// Objects around the edges of groups, stored by the node and lying in a folder for nginx.
fn objects(node: &Node, folder: &Path) -> Vec<Object> {
    fs::create_dir_all(folder.join("root/o")).expect("a directory can be made");
    let sizes = [0, 1, 26, 1000, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 17];
    let objects: Vec<Object> = (1..).zip(sizes).map(|(seed, size)| object(seed, size)).collect();
    for object in &objects {
        Curl::http(node).store(object);
        let file = folder.join("root/o").join(&object.addr);
        fs::write(file, &object.bytes).expect("it can be written");
    }
    objects
}

#[test]
#[ignore = "needs nginx; named in the README"]
fn as_nginx_does_but_where_it_is_meant() {
    let data = Data::new();
    let folder = data.path().join("nginx");
    let node = data.start(1);
    let objects = objects(&node, &folder);
    let nginx = Nginx::start(&folder);
    let (mut ours, mut theirs) = (Peer::new(node.connect()), nginx.connect());
    let (mut dice, mut met) = (Dice(9110), vec![0; DIFFERENCES.len()]);
    let (mut same, mut statuses) = (0, BTreeSet::new());
    for number in 0..REQUESTS {
        let object = &objects[dice.below(objects.len() as u64) as usize];
        let size = object.bytes.len() as u64;
        let (case, path) = (Case::new(&mut dice, size), format!("/o/{}", object.addr));
        let tag = theirs.get(&path).field("etag").expect("nginx has tags").to_owned();
        theirs.send(case.text(&path, &tag).as_bytes());
        ours.send(case.text(&path, &format!("\"{}\"", object.addr)).as_bytes());
        let found = Seen::of(&ours.response(case.method));
        let answer = theirs.response(case.method);
        // Behind a 412 to HEAD nginx closes the connection and says that it does not.
        if !answer.keeps() || answer.status == 412 {
            theirs = nginx.connect();
        }
        let other = Seen::of(&answer);
        let differs =
            DIFFERENCES.iter().position(|(_, applies)| applies(&case, size, other.status));
        let model = case.model(object);
        let wanted = match differs {
            Some(at) => {
                met[at] += 1;
                &model
            }
            None => {
                same += 1;
                statuses.insert(other.status);
                &other
            }
        };
        let why = differs.map_or("as nginx does", |at| DIFFERENCES[at].0);
        let short = |seen: &Seen| {
            let parts: Vec<_> = seen.content.iter().map(|(is, bytes)| (is, bytes.len())).collect();
            format!("{} {:?} {:?} {parts:?}", seen.status, seen.content_range, seen.fields)
        };
        assert!(
            found == *wanted && found == model,
            "request {number}, {why}, of {size} bytes: {case:?}\n{}\nwanted {}",
            short(&found),
            short(wanted)
        );
    }
    println!("{REQUESTS} requests, {same} alike with {statuses:?}, differences {met:?}");
    assert!(met.iter().all(|count| *count > 0), "a difference is never met: {met:?}");
    assert_eq!(statuses, BTreeSet::from([200, 206, 304, 412, 416]));
    assert!(same > REQUESTS / 2, "only {same} of {REQUESTS} are alike");
    drop(nginx);
    node.terminate();
}
