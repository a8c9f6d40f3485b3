//! Samples of what threads of this process are doing, for profiles.
//!
//! Each thread has a timer on its own CPU time, so a thread that sleeps is not disturbed, and one
//! that works is asked where it is so many times for each second that it works. The signal comes to
//! that very thread; its handler walks the stack and leaves the addresses in memory that was there
//! before. It takes no lock and no memory. What they mean is looked up later, on a thread that may
//! take its time.
//!
//! ```text
//!   timers ─► SIGPROF ─► handler: pc, callers ─► addresses ─► finish ─► stacks ─► functions
//! ```
//!
//! There is one sampler at a time. The handler stays when a sampler ends and does nothing then: a
//! signal may still be on its way. Interrupted system calls go on by themselves (SA_RESTART) where
//! the kernel can do that. What the kernel does on behalf of a thread counts as the system call it
//! is in. Stacks are cut where code has no unwind tables (hand-written assembly), and the clock
//! pages that the kernel lends are not unwound: on some systems their tables are wrong.

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_void},
    fs, io,
    ops::Range,
    path::Path,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    limits::{SAMPLE_ADDRESSES_MAX, SAMPLE_DEPTH_MAX, SAMPLE_HZ_MAX, SAMPLE_THREADS_MAX},
    watch::{cpu_clock, own_thread},
};

/// Where samples go; nowhere while nobody samples.
static ACTIVE: AtomicPtr<Store> = AtomicPtr::new(ptr::null_mut());

/// Handlers that are running.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("threads are being sampled already")]
    Busy,
    #[error("{hz} samples a second; allowed: 1 to {max}")]
    Rate { hz: u32, max: u32 },
    #[error("the system refused {what}: {source}")]
    Refused { what: &'static str, source: io::Error },
}

/// Samples threads until it is finished or dropped.
pub struct Sampler {
    // Stopped before the store goes.
    timers: BTreeMap<i32, Timer>,
    store: Box<Store>,
    hz: u32,
    only: Option<i32>,
    /// Names of the threads that were ever sampled.
    names: BTreeMap<i32, String>,
}

/// What was sampled.
#[derive(Debug, Default)]
pub struct Samples {
    pub stacks: Vec<Stack>,
    /// Samples that did not fit.
    pub lost: u64,
    /// Names of the threads.
    pub names: BTreeMap<i32, String>,
}

/// Where one thread was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    pub thread: i32,
    /// Where it was, then where each caller goes on. `functions` takes them.
    pub addresses: Vec<usize>,
}

impl Sampler {
    /// Samples `hz` times for each second that a thread works: one thread, or all but the caller.
    ///
    /// # Errors
    /// Another sampler is there, the rate is out of bounds, or the system refuses signals or
    /// timers.
    pub fn start(hz: u32, only: Option<i32>) -> Result<Sampler, SampleError> {
        if hz == 0 || hz > SAMPLE_HZ_MAX {
            return Err(SampleError::Rate { hz, max: SAMPLE_HZ_MAX });
        }
        // Whatever unwinding sets up at its first use must not be set up in a handler.
        backtrace::trace(|_| true);
        let store = Box::new(Store::new());
        let place: *mut Store = ptr::from_ref(&*store).cast_mut();
        let none = ptr::null_mut();
        if ACTIVE.compare_exchange(none, place, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(SampleError::Busy);
        }
        let names = BTreeMap::new();
        let mut sampler = Sampler { timers: BTreeMap::new(), store, hz, only, names };
        listen()?;
        sampler.look()?;
        Ok(sampler)
    }

    /// Looks for threads that are new, to be called now and then.
    ///
    /// # Errors
    /// The system refuses another timer.
    pub fn look(&mut self) -> Result<(), SampleError> {
        let refused = |what| move |source| SampleError::Refused { what, source };
        let own = own_thread();
        let threads = fs::read_dir("/proc/self/task").map_err(refused("the list of threads"))?;
        for thread in threads.filter_map(Result::ok) {
            let id = thread.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(id) = id.filter(|id| *id != own && self.only.is_none_or(|only| only == *id))
            else {
                continue;
            };
            if self.timers.contains_key(&id) || self.timers.len() >= SAMPLE_THREADS_MAX {
                continue;
            }
            match Timer::start(id, self.hz) {
                Ok(timer) => drop(self.timers.insert(id, timer)),
                // The thread has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => continue,
                Err(error) => return Err(refused("a timer")(error)),
            }
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            self.names.insert(id, name.trim_end().to_owned());
        }
        Ok(())
    }

    /// Ends sampling.
    pub fn finish(mut self) -> Samples {
        self.stop();
        let names = std::mem::take(&mut self.names);
        Samples { stacks: self.store.stacks(), lost: *self.store.lost.get_mut(), names }
    }

    /// After this no handler knows the store.
    fn stop(&mut self) {
        self.timers.clear();
        ACTIVE.store(ptr::null_mut(), Ordering::SeqCst);
        // A handler runs for microseconds, and new ones find nothing.
        while HANDLERS.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Another sampler may be there by now if this one was finished, and only then.
        if ptr::eq(ACTIVE.load(Ordering::SeqCst), &*self.store) {
            self.stop();
        }
    }
}

/// The functions at an address of a stack, the inlined ones first. `is_first` is for the address
/// the thread was at, which is not one to return to. Takes long, and much memory until
/// `forget_functions`.
pub fn functions(address: usize, is_first: bool) -> Vec<String> {
    let mut names = Vec::new();
    // The library looks at the byte before, for the call.
    let place = address + usize::from(is_first);
    backtrace::resolve(ptr::without_provenance_mut(place), |symbol| {
        let file = symbol.filename().and_then(Path::to_str);
        names.extend(symbol.name().map(|name| full(&format!("{name:#}"), file)));
    });
    if names.is_empty() {
        let is_clock = vdso().contains(&address);
        names.push(if is_clock { "[vdso]" } else { "[unknown]" }.to_owned());
    }
    names
}

/// A name as people know it. One that was inlined comes without its path, so the file takes its
/// place; what it is generic over is left out then.
fn full(name: &str, file: Option<&str>) -> String {
    const FOLDERS: usize = 4;
    let short = name.split('<').next().unwrap_or(name);
    let Some(file) = file.filter(|_| !short.is_empty() && !short.contains("::")) else {
        return name.to_owned();
    };
    let start = file.rmatch_indices('/').nth(FOLDERS - 1).map_or(0, |(at, _)| at + 1);
    format!("{short} ({})", &file[start..])
}

/// Gives back what `functions` keeps for the next time, to the system too: the allocator would keep
/// it, tens of MiB, for the calling thread.
pub fn forget_functions() {
    backtrace::clear_symbol_cache();
    #[cfg(feature = "ring")]
    crate::ring::release_now();
}

/// Memory that handlers write to: for each sample thread and depth, then the addresses.
struct Store {
    words: Box<[AtomicU64]>,
    used: AtomicUsize,
    lost: AtomicU64,
    vdso: Range<usize>,
}

impl Store {
    fn new() -> Store {
        let words = (0..SAMPLE_ADDRESSES_MAX).map(|_| AtomicU64::new(0)).collect();
        Store { words, used: AtomicUsize::new(0), lost: AtomicU64::new(0), vdso: vdso() }
    }

    /// Takes the stack of the calling thread, which was interrupted at `pc` if that is known.
    fn take(&self, pc: Option<usize>) {
        let mut stack = [0; SAMPLE_DEPTH_MAX];
        let mut depth = 0;
        if let Some(pc) = pc {
            stack[0] = pc;
            depth = 1;
        }
        if !pc.is_some_and(|pc| self.vdso.contains(&pc)) {
            // The frames of the handler itself come first.
            let mut is_inside = pc.is_none();
            // SAFETY: handlers of several threads run at once; what is not synchronized is state
            // that this function does not have where the unwinder of libgcc is used, on Linux.
            unsafe {
                backtrace::trace_unsynchronized(|frame| {
                    let at = frame.ip() as usize;
                    // The caller of a thread's first function is nowhere.
                    if is_inside && depth < SAMPLE_DEPTH_MAX && at > 0 {
                        stack[depth] = at;
                        depth += 1;
                    }
                    is_inside |= Some(at) == pc;
                    depth < SAMPLE_DEPTH_MAX
                });
            }
        }
        self.keep(own_thread(), &stack[..depth]);
    }

    fn keep(&self, thread: i32, stack: &[usize]) {
        let start = self.used.fetch_add(1 + stack.len(), Ordering::Relaxed);
        let Some(words) = self.words.get(start..start.saturating_add(1 + stack.len())) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        words[0].store((thread as u64) << 8 | stack.len() as u64, Ordering::Relaxed);
        for (word, address) in words[1..].iter().zip(stack) {
            word.store(*address as u64, Ordering::Relaxed);
        }
    }

    fn stacks(&self) -> Vec<Stack> {
        let used = self.used.load(Ordering::Relaxed).min(self.words.len());
        let mut words = self.words[..used].iter().map(|word| word.load(Ordering::Relaxed));
        let mut stacks = Vec::new();
        // What did not fit has left zeros.
        while let Some(head) = words.next().filter(|head| *head > 0) {
            let depth = (head & 0xff) as usize;
            let addresses = words.by_ref().take(depth).map(|word| word as usize).collect();
            stacks.push(Stack { thread: (head >> 8) as i32, addresses });
        }
        stacks
    }
}

/// A timer on the CPU time of one thread, which signals that thread.
struct Timer(libc::timer_t);

impl Timer {
    fn start(thread: i32, hz: u32) -> io::Result<Timer> {
        const NS: i64 = 1_000_000_000;
        // SAFETY: all zeros is a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = thread;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: the call reads one sigevent and writes one id.
        if unsafe { libc::timer_create(cpu_clock(thread), &mut event, &mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let timer = Timer(timer);
        let period = NS / i64::from(hz);
        let period = libc::timespec { tv_sec: period / NS, tv_nsec: period % NS };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer was just made; the call reads the times and writes nothing.
        match unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) } {
            0 => Ok(timer),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and not deleted yet.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Has the handler called from now on.
fn listen() -> Result<(), SampleError> {
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as Handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the form that the flags say, and does only what a handler may: see
    // there.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(SampleError::Refused { what: "a handler", source: io::Error::last_os_error() }),
    }
}

/// Runs on the thread that is sampled, between two of its instructions.
extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the address of this thread's errno, which the code in between must find unchanged.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above.
    let before = unsafe { *errno };
    HANDLERS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: a store that is active lives until it is not and no handler runs, see `stop`. Other
    // threads only share it.
    if let Some(store) = unsafe { ACTIVE.load(Ordering::SeqCst).as_ref() } {
        store.take(interrupted_at(context));
    }
    HANDLERS.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: see above.
    unsafe { *errno = before };
}

/// Where the thread was interrupted, where that is known how to find.
fn interrupted_at(context: *mut c_void) -> Option<usize> {
    // SAFETY: the kernel hands a handler of this form its context.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() }?;
    #[cfg(target_arch = "x86_64")]
    let pc = Some(context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let pc = Some(context.uc_mcontext.pc as usize);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let pc = {
        let _ = context;
        None
    };
    pc
}

/// The pages of code that the kernel lends, for its clock.
fn vdso() -> Range<usize> {
    const LEN_MAX: usize = 16 * 1024;
    // SAFETY: the call takes a number and cannot fail; 0 stands for none.
    let start = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    if start == 0 { 0..0 } else { start..start + LEN_MAX }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, atomic::AtomicBool, mpsc},
        thread,
    };

    use super::*;

    /// There is one sampler at a time.
    static TURN: Mutex<()> = Mutex::new(());

    /// Ends those who burn, though a test fails.
    struct Raise<'a>(&'a AtomicBool);

    impl Drop for Raise<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[inline(never)]
    fn burn_in_circles(until: &AtomicBool) -> u64 {
        let mut spun = 0;
        while !until.load(Ordering::Relaxed) {
            spun = std::hint::black_box(spun + 1);
        }
        spun
    }

    /// Threads that burn until the end of the test; yields their ids.
    fn burning<T>(threads: usize, body: impl FnOnce(&[i32]) -> T) -> T {
        let until = AtomicBool::new(false);
        thread::scope(|scope| {
            let (told, ids) = mpsc::channel();
            for n in 0..threads {
                let (told, until) = (told.clone(), &until);
                let burn = move || {
                    told.send(own_thread()).unwrap();
                    burn_in_circles(until)
                };
                thread::Builder::new().name(format!("burn-{n}")).spawn_scoped(scope, burn).unwrap();
            }
            let ids: Vec<i32> = ids.iter().take(threads).collect();
            let _end = Raise(&until);
            body(&ids)
        })
    }

    /// Waits until so many samples were taken.
    fn wait(sampler: &Sampler, addresses: usize) {
        while sampler.store.used.load(Ordering::Relaxed) < addresses {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_works_is_found_where_it_works() {
        let _turn = TURN.lock().unwrap();
        burning(2, |ids| {
            let sampler = Sampler::start(SAMPLE_HZ_MAX, Some(ids[1])).unwrap();
            assert!(matches!(Sampler::start(99, None), Err(SampleError::Busy)));
            wait(&sampler, 200);
            let samples = sampler.finish();
            assert!(samples.names[&ids[1]].starts_with("burn-") && samples.names.len() == 1);
            assert!(samples.stacks.iter().all(|stack| stack.thread == ids[1]));
            let is_there = |stack: &&Stack| {
                let name = |at: &usize| functions(*at, *at == stack.addresses[0]).concat();
                let names: Vec<String> = stack.addresses.iter().map(name).collect();
                // The callers are known too, and the handler is not among them.
                names[0].contains("burn_in_circles") && names[1].contains("io/src/sample.rs")
            };
            let there = samples.stacks.iter().filter(is_there).count();
            assert!(there * 10 > samples.stacks.len() * 9, "{there} of {}", samples.stacks.len());
            forget_functions();
        });
    }

    #[test]
    fn threads_that_come_later_are_found_and_the_caller_is_left_alone() {
        let _turn = TURN.lock().unwrap();
        let mut sampler = Sampler::start(SAMPLE_HZ_MAX, None).unwrap();
        burning(1, |ids| {
            assert!(!sampler.names.contains_key(&ids[0]));
            sampler.look().unwrap();
            wait(&sampler, 100);
            let samples = sampler.finish();
            assert!(samples.stacks.iter().any(|stack| stack.thread == ids[0]));
            assert!(!samples.names.contains_key(&own_thread()));
        });
    }

    #[test]
    fn a_sampler_that_is_dropped_makes_room_for_the_next() {
        let _turn = TURN.lock().unwrap();
        burning(1, |ids| {
            for _ in 0..50 {
                drop(Sampler::start(SAMPLE_HZ_MAX, Some(ids[0])).unwrap());
            }
            assert_eq!(Sampler::start(1, Some(i32::MAX)).unwrap().finish().stacks, []);
        });
        for hz in [0, SAMPLE_HZ_MAX + 1] {
            assert!(matches!(Sampler::start(hz, None), Err(SampleError::Rate { .. })));
        }
    }

    #[test]
    fn names_without_a_path_are_given_the_file() {
        let file = Some("/home/me/ron/shards/src/session/http.rs");
        assert_eq!(full("take<A<B>, C>", file), "take (shards/src/session/http.rs)");
        assert_eq!(full("{closure#0}", Some("lib.rs")), "{closure#0} (lib.rs)");
        for whole in ["a::b", "a::b<C>", "<A as B>::c", ""] {
            assert_eq!(full(whole, file), whole);
        }
        assert_eq!(full("memcpy", None), "memcpy");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_fitted_is_kept() {
        let words = (0..7).map(|_| AtomicU64::new(0)).collect();
        let store =
            Store { words, used: AtomicUsize::new(0), lost: AtomicU64::new(0), vdso: vdso() };
        store.keep(9, &[1, 2]);
        store.keep(i32::MAX, &[]);
        store.keep(9, &[3, 4, 5]);
        store.keep(9, &[]);
        let first = Stack { thread: 9, addresses: vec![1, 2] };
        let second = Stack { thread: i32::MAX, addresses: vec![] };
        assert_eq!(store.stacks(), [first, second]);
        assert_eq!(store.lost.load(Ordering::Relaxed), 2);
    }
}
