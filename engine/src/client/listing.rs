//! All objects of a node, page by page, and `ronctl ls`, which prints them.
//!
//! A page at a time is in memory. An object that is there all the time comes exactly once; one that
//! comes or goes meanwhile may be among them or not.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Write,
    time::Duration,
};

use ron_codec::address::Address;
use ron_control::{
    limits::LIST_OBJECTS_MAX,
    listing::{ObjectEntry, ObjectsPage},
};

use super::{
    args::Shared,
    error::{AnswerFault, ClientError},
    http::Http,
    options::{Ls, Prefix},
    retry::with_retries,
    stdout::stdout_failed,
};

type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// The objects of a node by rising address.
pub(super) struct Listing {
    http: Http,
    prefix: Prefix,
    after: Option<Address>,
    page: VecDeque<ObjectEntry>,
    /// Whether no page follows.
    ended: bool,
    absent: BTreeSet<u16>,
}

impl Listing {
    /// Those whose address begins so, behind `after`.
    ///
    /// # Errors
    /// There is no certificate to trust.
    pub(super) fn new(
        shared: &Shared,
        prefix: &Prefix,
        after: Option<Address>,
    ) -> Result<Listing, ClientError> {
        let http = Http::from_args(shared, &shared.admin)?;
        let (page, ended, absent) = (VecDeque::new(), false, BTreeSet::new());
        Ok(Listing { http, prefix: prefix.clone(), after, page, ended, absent })
    }

    /// The next object; `None` behind the last.
    ///
    /// # Errors
    /// Those of the connection and the node.
    pub(super) fn next(&mut self, wait: Wait<'_>) -> Result<Option<ObjectEntry>, ClientError> {
        while self.page.is_empty() && !self.ended {
            self.fetch(LIST_OBJECTS_MAX.into(), wait)?;
        }
        Ok(self.page.pop_front())
    }

    /// Partitions whose objects could not be listed, so far.
    pub(super) fn absent(&self) -> &BTreeSet<u16> {
        &self.absent
    }

    /// Fetches the next page. What does not rise would come twice, or without end.
    fn fetch(&mut self, limit: u64, wait: Wait<'_>) -> Result<(), ClientError> {
        let mut path = format!("/objects?limit={limit}&prefix={}", self.prefix.digits());
        if let Some(after) = &self.after {
            path += &format!("&after={after}");
        }
        let json = with_retries(wait, || self.http.report(&path))?;
        let page: ObjectsPage =
            serde_json::from_slice(&json).map_err(|_| AnswerFault::Json { len: json.len() })?;
        let mut last = self.after;
        for addr in page.objects.iter().map(|object| object.addr) {
            if last.is_some_and(|last| addr <= last) || !self.prefix.is_of(&addr.to_hex()) {
                return Err(AnswerFault::Page.into());
            }
            last = Some(addr);
        }
        if page.next.is_some_and(|next| Some(next) < last || Some(next) <= self.after) {
            return Err(AnswerFault::Page.into());
        }
        self.absent.extend(page.absent);
        (self.after, self.ended) = (page.next, page.next.is_none());
        self.page = page.objects.into();
        Ok(())
    }
}

/// Prints objects, a page at a time.
pub(super) fn ls(
    shared: &Shared,
    options: &Ls,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let mut listing = Listing::new(shared, &options.prefix, None)?;
    let mut left = options.limit.unwrap_or(u64::MAX);
    while left > 0 && !listing.ended {
        listing.fetch(left.min(LIST_OBJECTS_MAX.into()), wait)?;
        let mut lines = String::new();
        for object in listing.page.drain(..) {
            lines += &line(&object, options, shared.json);
            left -= 1;
        }
        out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)?;
    }
    match listing.absent {
        absent if absent.is_empty() => Ok(()),
        absent => Err(ClientError::Unlisted { partitions: absent.into_iter().collect() }),
    }
}

fn line(object: &ObjectEntry, options: &Ls, json: bool) -> String {
    let ObjectEntry { addr, size, damaged } = object;
    let state = if *damaged { " damaged" } else { "" };
    match (json, options.long) {
        (true, _) => serde_json::json!(object).to_string() + "\n",
        (_, true) => format!("{addr} {size}{state}\n"),
        _ => format!("{addr}\n"),
    }
}
