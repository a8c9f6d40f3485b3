//! What a node's directory can be asked while the node is stopped, by the holder of its locks.
//!
//! These are the store's own eyes: the walk that a boot takes through the log, the index as it is
//! on disk, and how files are named. Nothing here writes.

pub use super::{
    index::{Entry, Flaw, Location, Position, Unusable, View, ViewError},
    layout::{hidden_number, object_address, segment_number},
    scan::{Break, Found, Next, Walk, is_whole},
};
