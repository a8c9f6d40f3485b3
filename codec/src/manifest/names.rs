//! The fixed words of bundles.

/// The first bytes of every bundle manifest, and of no other object that anyone would call one.
pub const MANIFEST_MAGIC: &[u8] = b"schema_version = 3\nkind = \"bundle\"\n";

/// What a manifest is called within its bundle.
pub const MANIFEST_NAME: &str = "Manifest.toml";

/// What an object is called within itself.
pub const PAYLOAD_NAME: &str = "payload.bin";

/// What stands for a directory.
pub const INDEX_NAME: &str = "index.html";
