//! Fetching objects of a node: small ones by several threads at once, each whole, and handed on in
//! the order in which they were asked for; large ones as streams that survive a lost connection.
//!
//! ```text
//!   ask ─► queue ─► threads, a connection each ─► answers, in order
//!            at most so many objects are asked for and not taken
//! ```

use std::{
    collections::VecDeque,
    io::Read,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Scope,
    time::Duration,
};

use ron_codec::address::Address;
use ron_control::listing::ObjectEntry;

use crate::{
    archive::Fields,
    client::{
        args::Shared,
        error::{AnswerFault, ClientError},
        http::Http,
        pour::{Unpoured, pour},
        retry::{LOST_PAUSE, RETRIES_MAX, sleep, with_patience},
    },
};

type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// An object that is in memory.
pub(super) type Fetched = Result<(Vec<u8>, Fields), ClientError>;

/// A question to the threads, and where its answer goes.
struct Question {
    address: Address,
    size: u64,
    answer: SyncSender<Fetched>,
}

/// Those that were asked for and not taken yet, in order.
pub(super) struct Fetches {
    questions: SyncSender<Question>,
    pending: VecDeque<(ObjectEntry, Receiver<Fetched>)>,
    max: usize,
}

/// The threads' end of the queue.
pub(super) struct Queue(Mutex<Receiver<Question>>);

impl Fetches {
    /// A queue for so many threads, and the end that they take from.
    pub(super) fn new(jobs: usize) -> (Fetches, Queue) {
        let max = 2 * jobs;
        let (questions, queue) = sync_channel(max);
        (Fetches { questions, pending: VecDeque::new(), max }, Queue(Mutex::new(queue)))
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// There is no certificate to trust.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        queue: &'scope Queue,
        jobs: usize,
        shared: &'scope Shared,
    ) -> Result<(), ClientError> {
        for _ in 0..jobs {
            let http = Http::from_args(shared, &shared.node)?;
            scope.spawn(move || work(queue, &http, shared.quiet));
        }
        Ok(())
    }

    /// Whether one must be taken before the next is asked for.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= self.max
    }

    /// Asks for an object.
    pub(super) fn ask(&mut self, object: ObjectEntry) {
        let (answer, answered) = sync_channel(1);
        let question = Question { address: object.addr, size: object.size, answer };
        // The threads live as long as this; the queue has a place for each that is pending.
        let _ = self.questions.send(question);
        self.pending.push_back((object, answered));
    }

    /// Waits for the first that was asked for; `None` when there is none.
    pub(super) fn take(&mut self) -> Option<(ObjectEntry, Fetched)> {
        let (object, answered) = self.pending.pop_front()?;
        let lost = || Err(ClientError::Request { reason: "a thread has ended".to_owned() });
        Some((object, answered.recv().unwrap_or_else(|_| lost())))
    }
}

/// Takes what is fetched.
pub(super) trait Taker {
    /// What the node says of the object. It comes once, before the bytes.
    fn begin(&mut self, fields: &Fields) -> Result<(), ClientError>;

    /// The next bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError>;
}

/// Takes an object into memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) fields: Fields,
}

impl Taker for Memory {
    fn begin(&mut self, fields: &Fields) -> Result<(), ClientError> {
        self.fields = fields.clone();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn work(queue: &Queue, http: &Http, quiet: bool) {
    let mut wait = sleep(quiet);
    loop {
        let question = queue.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { address, size, answer }) = question else { return };
        let mut memory = Memory::default();
        let fetched = stream(http, &address, size, &mut wait, &mut memory);
        // The only error is that nobody waits any more.
        let _ = answer.send(fetched.map(|()| (memory.bytes, memory.fields)));
    }
}

/// Hands over the bytes of an object: `size` of them. Whether they are right the taker finds out.
///
/// # Errors
/// Those of the connection, the node and the taker. A lost connection is made again as long as
/// that brings more bytes, and a few times when it does not.
pub(super) fn stream(
    http: &Http,
    address: &Address,
    size: u64,
    wait: Wait<'_>,
    taker: &mut dyn Taker,
) -> Result<(), ClientError> {
    let (mut got, mut fruitless, mut begun) = (0, 0, false);
    loop {
        let mut opened = with_patience(wait, || http.open(address, got))?;
        if opened.size != size {
            return Err(AnswerFault::Size { size: opened.size, expected: size }.into());
        }
        if !std::mem::replace(&mut begun, true) {
            taker.begin(&opened.fields)?;
        }
        let before = got;
        let mut body = opened.body.as_reader().take(size - got);
        let poured = pour(&mut body, |bytes| {
            got += bytes.len() as u64;
            taker.take(bytes)
        });
        let reason = match poured {
            Err(Unpoured::Taken(error)) => return Err(error),
            _ if got == size => return Ok(()),
            Err(Unpoured::Read(error)) => error.to_string(),
            Ok(()) => "the answer ended".to_owned(),
        };
        // A node ends an answer, too, when what it reads proves to be damaged.
        fruitless = if got > before { 0 } else { fruitless + 1 };
        let lost = ClientError::Lost { got, len: Some(size), reason };
        if fruitless > RETRIES_MAX {
            return Err(lost);
        }
        wait(&lost, LOST_PAUSE);
    }
}
