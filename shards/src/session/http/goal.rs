//! What may be asked of a bundle.

/// What is looked for behind the address of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal<'a> {
    /// A raw path, not empty.
    Path(&'a str),
    /// The index of the whole bundle.
    Index,
    Manifest,
    /// All of the object, whatever it is.
    Object,
}
