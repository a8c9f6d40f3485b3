//! What arguments `ronctl` takes, and how they are read.
//!
//! Arguments are judged here, before anything is opened or sent: an address that is no address, a
//! range that ends before it begins, a token that no header can carry.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ron_codec::address::Address;

use super::{
    error::EXIT_HELP,
    name_args::NameCommand,
    options::{Export, Import, Ls},
};
use crate::config::keys::VERSION;

mod many;
mod values;

pub use many::{Pack, PaymentTerms, Put, Unpack};
pub use values::{ArgError, Cap, Encodings, HostPort, Jobs, NodeUrl, Range, Seconds, Tld};

/// Stores and fetches objects by their address, and looks after a node's storage.
#[derive(Debug, Parser)]
#[command(name = "ronctl", version = VERSION, about, after_help = EXIT_HELP)]
#[command(max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub shared: Shared,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, clap::Args)]
pub struct Shared {
    /// The node to talk to over HTTP.
    #[arg(long, global = true, value_name = "URL", env = "RON_NODE_URL")]
    #[arg(default_value = "http://127.0.0.1:9080")]
    pub node: NodeUrl,
    /// The admin listener of the node, for scrub, verify, name, storage, ls and export.
    #[arg(long, global = true, value_name = "URL", env = "RON_ADMIN_URL")]
    #[arg(default_value = "http://127.0.0.1:9096")]
    pub admin: NodeUrl,
    /// The capability to show to the node.
    #[arg(long, global = true, value_name = "TOKEN", env = "RON_CAP", hide_env_values = true)]
    pub cap: Option<Cap>,
    /// More certificates to trust, PEM, such as the CA of a node; those of the system are trusted
    /// anyway.
    #[arg(long, global = true, value_name = "FILE", env = "RON_CA")]
    pub ca: Option<PathBuf>,
    /// How long to wait for a connection, and for each next sign of life.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30")]
    pub timeout: Seconds,
    /// Say nothing on stderr but errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print results as JSON, an object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Store files and print their addresses.
    Put(Put),
    /// Store a directory or a file as a bundle, and print its address.
    ///
    /// Every file becomes an object, text and the like has encoded copies where they are smaller by
    /// 5 percent, and a manifest lists all of them; its address is that of the bundle. The same
    /// files have the same address. What the node has already is not sent.
    Pack(Pack),
    /// Make the files of a bundle again, each checked against its address.
    Unpack(Unpack),
    /// Fetch an object and check that its bytes hash to its address.
    ///
    /// With -o the bytes are written to a file FILE.RANDOM.part, which takes the name FILE once
    /// they are checked.
    /// A part of an object cannot be checked against the address, and stderr says so.
    Get(Get),
    /// Print the address and the size of an object.
    Stat {
        /// The object, b3:<64 hex digits>; a .TLD behind it is ignored.
        #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
        address: Address,
    },
    /// Check all that a stopped node keeps: log, object files, index.
    ///
    /// Every byte is hashed and every record compared with the index. Nothing is changed, unless
    /// --rebuild-index is given.
    Fsck(crate::fsck::Options),
    /// Delete objects, and print the address of each that is gone.
    Rm {
        /// The objects, b3:<64 hex digits> each.
        #[arg(value_name = "ADDR", required = true)]
        #[arg(value_parser = Address::parse_route_segment)]
        addresses: Vec<Address>,
    },
    /// Look for damage in all that a node stores.
    Scrub {
        /// Begin now, whatever the schedule says. What comes of it: ronctl storage.
        #[arg(long, required = true)]
        now: bool,
    },
    /// Have a node read objects again from its disk, and print what each is found to be.
    Verify {
        /// The objects, b3:<64 hex digits> each.
        #[arg(value_name = "ADDR", required = true)]
        #[arg(value_parser = Address::parse_route_segment)]
        addresses: Vec<Address>,
    },
    /// Print the objects of a node by rising address, as its admin listener lists them.
    Ls(Ls),
    /// Write the objects of a node, or of the directories of a stopped one, into one archive.
    ///
    /// The archive is a tar file whose members are named by their addresses. Objects are checked as
    /// they come; what is damaged is named, left out, and makes the exit code 5.
    Export(Export),
    /// Store the objects of an archive in a node.
    ///
    /// Objects are checked before they are sent, and what the node has is not sent. What is damaged
    /// is named and makes the exit code 5; all else is stored.
    Import(Import),
    /// Give paths to bundles and objects, and look at which were given.
    Name {
        #[command(subcommand)]
        command: NameCommand,
    },
    /// Print what a node stores and in what state it is.
    ///
    /// With --json, as the node gives it.
    Storage,
}

/// What to fetch, and from where to where.
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// The object, b3:<64 hex digits>; a .TLD behind it is ignored.
    #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
    pub address: Address,
    /// Where to write it; standard output without this, or when it is -.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only the bytes from A to B, both included and counted from 0; A- is all from A on.
    #[arg(long, value_name = "A-B")]
    pub range: Option<Range>,
    /// Go on with what an earlier try left in FILE.part, and leave it there after a failure.
    #[arg(long = "continue", requires = "output", conflicts_with = "range")]
    pub go_on: bool,
    /// Fetch over OAP/1 from there instead of over HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    pub oap: Option<HostPort>,
    /// The name that the node's certificate must be for, when it is not HOST.
    #[arg(long, value_name = "SERVERNAME", requires = "oap")]
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_description_of_the_arguments_is_sound() {
        Args::command().debug_assert();
        let help = Args::command().render_help().to_string();
        assert!(help.contains("  5  integrity"), "{help}");
    }

    #[test]
    fn commands_are_read() {
        let args = ["ronctl", "get", HEX, "-o", "f", "--range", "1-2", "--timeout", "5", "-q"];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!(args.shared.timeout.0, Duration::from_secs(5));
        assert!(args.shared.quiet);
        let Command::Get(get) = args.command else { panic!() };
        assert_eq!(get.range, Some(Range { first: 1, last: Some(2) }));
        assert_eq!(get.output, Some("f".into()));

        let named = format!("b3:{HEX}.png");
        let stat = Args::try_parse_from(["ronctl", "stat", &named]).unwrap();
        let Command::Stat { address } = stat.command else { panic!() };
        assert_eq!(address, HEX.parse().unwrap());
        assert!(Args::try_parse_from(["ronctl", "verify", &named, HEX]).is_ok());

        let rm = Args::try_parse_from(["ronctl", "rm", HEX, &named]).unwrap();
        assert!(matches!(rm.command, Command::Rm { addresses } if addresses.len() == 2));
        let scrub = ["ronctl", "scrub", "--now", "--admin", "http://h:1/"];
        let scrub = Args::try_parse_from(scrub).unwrap();
        assert_eq!(scrub.shared.admin.path("/scrub"), "http://h:1/scrub");

        let put = Args::try_parse_from(["ronctl", "--node", "https://n", "put", "-"]).unwrap();
        assert!(matches!(put.command, Command::Put(put) if put.files[0].as_os_str() == "-"));
        let set = ["ronctl", "name", "set", "tiles/", HEX, "--if-version", "0"];
        let set = Args::try_parse_from(set).unwrap();
        let Command::Name { command: NameCommand::Set { path, options, .. } } = set.command else {
            panic!()
        };
        assert_eq!((path.as_str(), options.if_version), ("/tiles", Some(0)));
        for listed in [&["ls"][..], &["list"], &["ls", "/a", "--json"], &["log", "-n", "1000"]] {
            let args = ["ronctl", "name"].iter().chain(listed);
            assert!(Args::try_parse_from(args).is_ok(), "{listed:?}");
        }
        for wrong in [
            &["ronctl"][..],
            &["ronctl", "name"],
            &["ronctl", "name", "set", "/a/../b", HEX],
            &["ronctl", "name", "set", "/a", "b3:00"],
            &["ronctl", "name", "rm"],
            &["ronctl", "name", "log", "-n", "1001"],
            &["ronctl", "put"],
            &["ronctl", "get", "b3:00"],
            &["ronctl", "get", "b3:00.png"],
            &["ronctl", "--node", "http://127.0.0.1:99999", "rm", HEX],
            &["ronctl", "--admin", "http://127.0.0.1:", "scrub", "--now"],
            &["ronctl", "get", HEX, "--range", "2-1"],
            &["ronctl", "get", HEX, "--name", "n"],
            &["ronctl", "get", HEX, "--continue"],
            &["ronctl", "get", HEX, "-o", "f", "--continue", "--range", "1-2"],
            &["ronctl", "stat", HEX, "--range", "1-2"],
            &["ronctl", "rm"],
            &["ronctl", "rm", HEX, "b3:00"],
            &["ronctl", "verify"],
            &["ronctl", "scrub"],
            &["ronctl", "storage", HEX],
        ] {
            assert!(Args::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
