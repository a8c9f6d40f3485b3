//! A machine made of dice: the driver's half of the ports, without a kernel and without time.
//!
//! A simulation holds shards, tells them events and performs their acts with what is here: a clock
//! that passes when the simulation says so, a disk that forgets what was not synced,
//! sockets that take and bring bytes in pieces of any size, lanes between shards. All chance comes
//! from one seed, so a run can be repeated exactly. The promises kept are those of the real driver
//! and no stronger ones; where it promises nothing, dice are thrown.
//!
//! ```text
//!             ┌─ Clock   Now of every event
//!   Machine ──┼─ Queue   pending disk acts ──► Disk   names, bytes, what is synced
//!             ├─ Net     connections, both ends
//!             └─ Mesh    lanes between shards
//! ```
//!
//! A test that must know what fails has a [`PlantedDisk`] in place of a queue and a disk. Beside
//! these, [`heap`] measures what the machine holds, and [`tls`] has what both ends of TLS
//! are configured with.
//!
//! This module decides nothing: the simulation's driver chooses what happens next, and when
//! something fails. It is built with the feature `sim` only.

mod chance;
mod clock;
mod disk;
mod files;
pub mod heap;
mod inode;
mod mesh;
mod net;
mod planted;
mod queue;
pub mod tls;

pub use chance::Chance;
pub use clock::Clock;
pub use disk::{Disk, Injected, InodeId, Weather};
pub use files::file_of;
pub use mesh::Mesh;
pub use net::{Link, Move, Net};
pub use planted::{Kind, Planted, PlantedDisk};
pub use queue::{End, Queue};
