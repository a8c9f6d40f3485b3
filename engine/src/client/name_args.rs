//! What arguments `ronctl name` takes.

use clap::Subcommand;
use ron_codec::{address::Address, name::NamePath};
use ron_control::limits::NAME_CHANGES_KEPT;

/// What to do with names.
#[derive(Clone, Debug, Subcommand)]
pub enum NameCommand {
    /// Give a path to a bundle or an object, in place of what it was given to before.
    Set {
        /// The path, such as /maps/tiles; / alone is the root.
        path: NamePath,
        /// The bundle or object, b3:<64 hex digits>; a .TLD behind it is ignored.
        #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
        address: Address,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// List names, with the address and the version of each.
    #[command(alias = "list")]
    Ls {
        /// Only this path and those below it.
        #[arg(default_value = "/")]
        prefix: NamePath,
    },
    /// Take a path away. What it was given to is left as it is.
    Rm {
        /// The path.
        path: NamePath,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Print the last changes, the oldest of them first.
    Log {
        /// How many of them.
        #[arg(long, short = 'n', value_name = "N", default_value = "20")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=NAME_CHANGES_KEPT as u64))]
        limit: u64,
    },
}

/// How a name is changed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ChangeOptions {
    /// Only if the name is at this version, as ls prints it; 0: only if there is no such name.
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
}
