//! What is stored stays: kills, disks that fail or are full, bits that flip, volumes, and fsck.

#[path = "../common/mod.rs"]
mod common;

mod bit_rot;
mod crash;
mod disk_full;
mod failing_disk;
mod faults;
mod fsck;
mod mixed;
mod torture;
mod volumes;
