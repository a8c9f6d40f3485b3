//! What a driver with nothing to do looks like to the rest of the machine.

use std::fs;

use io_uring::IoUring;

use super::*;

/// More drivers than a machine has threads that wait for a disk all the time.
const DRIVERS: u64 = 8;

/// Threads of the machine that count as waiting for a disk.
fn blocked() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("procs_blocked ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_driver_that_waits_does_not_count_as_waiting_for_a_disk() {
    if probe::wait_flags(&IoUring::new(8).unwrap()) == 0 {
        eprintln!("SKIPPED: this kernel counts every thread that waits in a ring");
        return;
    }
    let drivers: Vec<Running> = (0..DRIVERS).map(|_| start()).collect();
    let deadline = Instant::now() + PATIENCE;
    for driver in &drivers {
        let watch = &driver.stats.watch;
        let mut turns = 0;
        while turns == 0 || turns != watch.turns.get() || watch.doing().is_some() {
            assert!(Instant::now() < deadline, "{turns} turns and no end");
            turns = watch.turns.get();
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    // Other threads may wait for a disk now and then; these would all the time.
    while blocked() >= DRIVERS {
        assert!(Instant::now() < deadline, "{} threads wait for a disk", blocked());
        std::thread::yield_now();
    }
    drivers.into_iter().for_each(Running::stop);
}
