//! Stacks as a picture: a box for each function, as wide as its share of the samples, above the
//! function that called it.
//!
//! The picture is one SVG. A browser shows the whole name and the numbers of a box when the pointer
//! rests on it, zooms into a box that is clicked, and searches for names with a small script. What
//! starts a thread is one row: see [`PLUMBING`]. Boxes too narrow to be seen are left out, so a
//! picture is bounded by its width however many stacks there are.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::Arc,
};

use crate::limits::PICTURE_ROWS_MAX;

/// What zooms and searches.
const SCRIPT: &str = include_str!("flame.js");

/// Parts of the names, or of the files, of functions that start threads and run their tasks. The
/// last of them in a stack and all below it are one row of a picture, called `RUNTIME`. Functions
/// of the standard library and of tokio that follow are part of that row.
const PLUMBING: [&str; 4] =
    ["start_thread", "__rust_begin_short_backtrace", "__libc_start", "glommio"];
const LIBRARIES: [&str; 9] = [
    "std::", "<std::", "core::", "<core::", "alloc::", "<alloc::", "tokio::", "<tokio::", "__rust_",
];
const LIBRARY_FILES: [&str; 3] = ["(std/", "(core/", "(library/"];
const RUNTIME: &str = "runtime";

/// A stack, the thread first, with its plumbing in one row.
fn without_plumbing(functions: &[Arc<str>]) -> Vec<Arc<str>> {
    let Some((thread, rest)) = functions.split_first() else { return Vec::new() };
    let has = |words: &[&str], function: &str| words.iter().any(|word| function.contains(word));
    // The last function is what the sample is about, whatever it is.
    let may = &rest[..rest.len().saturating_sub(1)];
    let start = may.iter().rposition(|function| has(&PLUMBING, function)).map_or(0, |at| at + 1);
    let is_library = |function: &Arc<str>| {
        LIBRARIES.iter().any(|name| function.starts_with(name)) || has(&LIBRARY_FILES, function)
    };
    let more = may[start..].iter().take_while(|function| is_library(function)).count();
    let (plumbing, left) = rest.split_at(start + more);
    let row = (!plumbing.is_empty()).then(|| Arc::from(RUNTIME));
    [thread.clone()].into_iter().chain(row).chain(left.iter().cloned()).collect()
}

/// Stacks with how often each was seen: functions, the outermost first.
#[derive(Debug, Default)]
pub(crate) struct Stacks(BTreeMap<Vec<Arc<str>>, u64>);

impl Stacks {
    /// Counts one more of a stack.
    pub(crate) fn add(&mut self, functions: Vec<Arc<str>>) {
        *self.0.entry(functions).or_default() += 1;
    }

    /// How many stacks were counted.
    pub(crate) fn samples(&self) -> u64 {
        self.0.values().sum()
    }

    /// A line a stack, as other tools read them.
    pub(crate) fn folded(&self) -> String {
        let mut text = String::new();
        for (functions, count) in &self.0 {
            for (at, function) in functions.iter().enumerate() {
                let between = if at == 0 { "" } else { ";" };
                text.push_str(between);
                // Both mean something in this format.
                text.extend(function.chars().map(|c| if c == ';' || c == '\n' { ',' } else { c }));
            }
            text.push_str(&format!(" {count}\n"));
        }
        text
    }

    /// The picture, under this title.
    pub(crate) fn svg(&self, title: &str) -> String {
        let mut root = Frame::default();
        for (functions, count) in &self.0 {
            let mut functions = without_plumbing(functions);
            functions.truncate(PICTURE_ROWS_MAX - 1);
            root.add(&functions, *count);
        }
        let mut svg = String::with_capacity(64 * 1024);
        // A string takes whatever is written to it.
        let _ = Picture::new(&root).draw(&root, title, &mut svg);
        svg
    }
}

/// A function where it was called from, and all it called.
#[derive(Debug, Default)]
struct Frame {
    samples: u64,
    /// In the order of their names, so that two pictures can be compared.
    calls: BTreeMap<Arc<str>, Frame>,
}

impl Frame {
    fn add(&mut self, functions: &[Arc<str>], count: u64) {
        self.samples += count;
        if let Some((first, rest)) = functions.split_first() {
            self.calls.entry(Arc::clone(first)).or_default().add(rest, count);
        }
    }

    /// Rows that it and what it called take, boxes narrower than `least` samples left out.
    fn rows(&self, least: f64) -> usize {
        let calls = self.calls.values().filter(|call| call.samples as f64 >= least);
        1 + calls.map(|call| call.rows(least)).max().unwrap_or(0)
    }
}

/// Lengths in units of the picture, about one pixel each.
const WIDTH: f64 = 1600.0;
const MARGIN: f64 = 10.0;
const HEAD: f64 = 44.0;
const ROW: f64 = 18.0;
const LETTER: f64 = 7.25;
/// Narrower boxes are left out.
const BOX_MIN: f64 = 0.4;
/// Names are written into boxes that have space for so many letters.
const LETTERS_MIN: usize = 3;

struct Picture {
    total: f64,
    rows: usize,
}

impl Picture {
    fn new(root: &Frame) -> Picture {
        let total = root.samples.max(1) as f64;
        Picture { total, rows: root.rows(total * BOX_MIN / (WIDTH - 2.0 * MARGIN)) }
    }

    fn draw(&self, root: &Frame, title: &str, svg: &mut String) -> fmt::Result {
        let height = HEAD + self.rows as f64 * ROW + MARGIN;
        write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fdfaf3\"/>\n\
             <text x=\"{x}\" y=\"26\" font-size=\"16\" text-anchor=\"middle\">{title}</text>\n",
            x = WIDTH / 2.0,
            title = Escaped(title),
        )?;
        if root.samples == 0 {
            let (x, y) = (WIDTH / 2.0, HEAD + ROW / 2.0);
            let said = "no samples: these threads used no CPU";
            writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{said}</text>")?;
        } else {
            self.draw_frame(root, "all", MARGIN, 0, svg)?;
            let x = WIDTH - MARGIN;
            writeln!(
                svg,
                "<text id=\"found\" x=\"{x}\" y=\"26\" text-anchor=\"end\">search</text>"
            )?;
            writeln!(svg, "<script><![CDATA[\n{SCRIPT}]]></script>")?;
        }
        svg.write_str("</svg>\n")
    }

    /// Draws a frame whose left edge is at `x`, so many rows above the ground, and what it called.
    fn draw_frame(
        &self,
        frame: &Frame,
        name: &str,
        x: f64,
        row: usize,
        svg: &mut String,
    ) -> fmt::Result {
        let width = frame.samples as f64 / self.total * (WIDTH - 2.0 * MARGIN);
        if width < BOX_MIN {
            return Ok(());
        }
        let y = HEAD + (self.rows - 1 - row.min(self.rows - 1)) as f64 * ROW;
        let share = 100.0 * frame.samples as f64 / self.total;
        write!(
            svg,
            "<g><title>{name} ({samples} samples, {share:.2} %)</title>\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{box_width:.1}\" height=\"{height}\" \
             fill=\"{colour}\" rx=\"2\"/>",
            name = Escaped(name),
            samples = frame.samples,
            box_width = (width - 0.5).max(BOX_MIN),
            height = ROW - 1.0,
            colour = colour(name),
        )?;
        let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
        if letters >= LETTERS_MIN {
            let (x, y) = (x + 3.0, y + ROW - 5.5);
            write!(svg, "<text x=\"{x:.1}\" y=\"{y}\">{}</text>", Escaped(&clip(name, letters)))?;
        }
        svg.write_str("</g>\n")?;
        let mut x = x;
        for (name, call) in &frame.calls {
            self.draw_frame(call, name, x, row + 1, svg)?;
            x += call.samples as f64 / self.total * (WIDTH - 2.0 * MARGIN);
        }
        Ok(())
    }
}

/// As much of a name as so many letters hold.
fn clip(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    name.chars().take(letters - 2).chain("..".chars()).collect()
}

/// A warm colour that is the same wherever the name is.
fn colour(name: &str) -> String {
    // FNV-1a, so that neighbours in the alphabet look different.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("hsl({},{}%,{}%)", 14 + hash % 40, 72 + hash / 64 % 20, 62 + hash / 4096 % 12)
}

/// Text of a picture: what would be markup is spelled out, what XML does not have is left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                // Lines end at these, or XML does not have them.
                '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => f.write_char(' ')?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(lines: &[(&str, u64)]) -> Stacks {
        let mut stacks = Stacks::default();
        for (line, count) in lines {
            for _ in 0..*count {
                stacks.add(line.split('|').map(Arc::from).collect());
            }
        }
        stacks
    }

    #[test]
    fn folded_stacks_are_counted_and_keep_the_format() {
        let stacks = stacks(&[("a|b", 2), ("a|<[u8; 4]>::c", 1), ("a|b|c", 3), ("a", 1)]);
        assert_eq!(stacks.folded(), "a 1\na;<[u8, 4]>::c 1\na;b 2\na;b;c 3\n");
        assert_eq!(stacks.samples(), 7);
    }

    #[test]
    fn boxes_are_as_wide_as_their_share_and_lie_on_their_callers() {
        let svg = stacks(&[("main|left", 1), ("main|right|leaf", 3)]).svg("t");
        let found = |name: &str| {
            let at = svg.find(&format!("<title>{name} (")).unwrap_or_else(|| panic!("{name}"));
            let number = |field: &str| -> f64 {
                let rest = &svg[at..];
                let rest = &rest[rest.find(&format!(" {field}=\"")).unwrap() + field.len() + 3..];
                rest[..rest.find('"').unwrap()].parse().unwrap()
            };
            [number("x"), number("y"), number("width")]
        };
        let [all, left, right, leaf] = ["all", "left", "right", "leaf"].map(found);
        assert!((left[2] * 3.0 - right[2]).abs() < 2.0 && (all[2] - 1580.0).abs() < 1.0);
        assert!((left[0] + left[2] - right[0]).abs() < 1.0, "side by side");
        assert!(left[1] == right[1] && all[1] == left[1] + 2.0 * ROW);
        assert!(leaf[0] == right[0] && leaf[1] == right[1] - ROW);
        assert!(svg.contains("(3 samples, 75.00 %)"));
    }

    #[test]
    fn what_starts_a_thread_is_one_row() {
        let start = "shard 0|clone3 (sysv/linux/clone3.S)|start_thread (./nptl/pthread_create.c)|\
                     std::thread::spawn|glommio::executor::LocalExecutor::run";
        let svg = stacks(&[(&format!("{start}|turn|std::io::read|leaf"), 1)]).svg("t");
        let is_row = |name: &str| svg.contains(&format!("<title>{name} ("));
        for name in ["all", "shard 0", "runtime", "turn", "std::io::read", "leaf"] {
            assert!(is_row(name), "{name}");
        }
        assert!(!is_row("std::thread::spawn") && !svg.contains("clone3"));
        // What the runtime itself does is shown.
        let svg = stacks(&[(start, 1)]).svg("t");
        assert!(svg.contains("<title>glommio::executor::LocalExecutor::run ("));
    }

    #[test]
    fn the_script_stays_within_its_element() {
        assert!(!SCRIPT.contains("]]>"));
        assert!(stacks(&[("a", 1)]).svg("t").contains(SCRIPT));
    }

    #[test]
    fn names_are_text_and_long_ones_are_clipped() {
        let name = format!("<&\"\u{1b}ü as {}>", "x".repeat(500));
        let svg = stacks(&[(&name, 1)]).svg("<t>");
        assert!(svg.contains(&format!("&lt;&amp;&quot; ü as {}&gt; (1", "x".repeat(500))));
        assert!(svg.contains(">&lt;t&gt;</text>") && svg.contains("xx..</text>"));
        assert!(svg.chars().all(|c| !c.is_control() || c == '\n'));
        let svg = svg.replace(SCRIPT, "");
        // Every tag that is opened is closed.
        for tag in ["g", "text", "title", "svg"] {
            let count = |what: String| svg.matches(&what).count();
            assert_eq!(
                count(format!("<{tag}>")) + count(format!("<{tag} ")),
                count(format!("</{tag}>")),
                "{tag}"
            );
        }
    }

    #[test]
    fn pictures_are_bounded_in_height_and_in_boxes() {
        let deep = vec!["f"; 10_000].join("|");
        let mut many = stacks(&[(&deep, 1)]);
        assert_eq!(many.svg("t").matches("<rect x").count(), PICTURE_ROWS_MAX);
        for n in 0..20_000 {
            many.add(vec![Arc::from(format!("leaf {n}"))]);
        }
        let svg = many.svg("t");
        assert_eq!(svg.matches("<rect x").count(), 1, "none is wide enough but the ground");
        assert!(Stacks::default().svg("t").contains("no samples"));
    }
}
