//! The numbers of the OAP/1 protocol. They bound frames and streams, and have nothing to do with
//! the sizes objects are stored and read in, which are in `crate::limits`.

/// Largest value of the `len` field of an OAP/1 frame: a limit of the protocol.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;

/// Bytes of an OAP/1 frame that `len` counts before capability and payload.
pub const FRAME_FIXED_LEN: usize = 33;

/// Longest JSON payload of an OAP/1 request: addresses and paths are short (413 beyond it).
pub const REQUEST_LEN_MAX: usize = 4 * 1024;

/// Most streams open at once on one OAP/1 connection (429 beyond it).
pub const OAP_INFLIGHT_MAX: u32 = 64;

/// Bytes a node sends unasked on an OAP/1 stream under credit, when nothing else is configured.
pub const OAP_WINDOW_LEN_DEFAULT: u64 = 256 * 1024;

/// Most bytes of an unknown OAP/1 `op` that an error repeats.
pub const OP_ECHO_LEN_MAX: usize = 32;

const _: () = assert!(FRAME_FIXED_LEN + crate::limits::OAP_CHUNK_LEN_MAX <= FRAME_LEN_MAX);
const _: () = assert!(FRAME_FIXED_LEN + REQUEST_LEN_MAX <= FRAME_LEN_MAX);
const _: () = assert!(OP_ECHO_LEN_MAX < REQUEST_LEN_MAX);
