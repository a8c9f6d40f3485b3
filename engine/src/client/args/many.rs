//! The arguments of commands that take many files: put, pack and unpack.

use std::path::PathBuf;

use ron_codec::address::Address;

use super::values::{Encodings, HostPort, Jobs, Tld};

/// What to store.
#[derive(Clone, Debug, clap::Args)]
pub struct Put {
    /// The files; - is standard input. Of more than one, each line of the output has an address
    /// and a name.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Store all files below directories, too.
    #[arg(long, short)]
    pub recursive: bool,
    /// How many files are sent at the same time.
    #[arg(long, value_name = "N", default_value = "8")]
    pub jobs: Jobs,
}

/// What to make a bundle of.
#[derive(Clone, Debug, clap::Args)]
pub struct Pack {
    /// A directory, or a file, which becomes the only one of its bundle.
    pub path: PathBuf,
    /// The suffix that the address is written with.
    #[arg(long)]
    pub tld: Option<Tld>,
    /// Which encoded copies to make of files that shrink: br, zstd, both, or none.
    #[arg(long, value_name = "LIST", default_value = "br,zstd")]
    pub encodings: Encodings,
    /// Under which licence the files are.
    #[arg(long)]
    pub license: Option<String>,
    #[command(flatten)]
    pub payment: PaymentTerms,
    /// How many files are worked on at the same time.
    #[arg(long, value_name = "N", default_value = "8")]
    pub jobs: Jobs,
    /// Follow symbolic links that lead to something inside the same tree.
    #[arg(long)]
    pub follow_links: bool,
    /// Find out the address, and ask and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// The terms under which a bundle is given; there are some once one of these is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct PaymentTerms {
    /// Nobody gets the bundle without a payment.
    #[arg(long = "payment-required")]
    pub required: bool,
    #[arg(long = "payment-currency", value_name = "TEXT")]
    pub currency: Option<String>,
    #[arg(long = "payment-price-model", value_name = "TEXT")]
    pub price_model: Option<String>,
    #[arg(long = "payment-price", value_name = "TEXT")]
    pub price: Option<String>,
    #[arg(long = "payment-wallet", value_name = "TEXT")]
    pub wallet: Option<String>,
}

/// Which bundle to make files of, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Unpack {
    /// The bundle, b3:<64 hex digits>; a .TLD behind it is ignored.
    #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
    pub address: Address,
    /// A directory that is empty, or not there.
    pub dir: PathBuf,
    /// Go on with what is in the directory: files that are there and right are left alone.
    #[arg(long = "continue")]
    pub go_on: bool,
    /// How many files are fetched at the same time.
    #[arg(long, value_name = "N", default_value = "8")]
    pub jobs: Jobs,
    /// Fetch over OAP/1 from there instead of over HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    pub oap: Option<HostPort>,
    /// The name that the node's certificate must be for, when it is not HOST.
    #[arg(long, value_name = "SERVERNAME", requires = "oap")]
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Args, Command},
        *,
    };

    #[test]
    fn commands_with_many_files_are_read() {
        let args = ["ronctl", "put", "-r", "a", "b", "--jobs", "3", "--json"];
        let args = Args::try_parse_from(args).unwrap();
        assert!(args.shared.json);
        let Command::Put(put) = args.command else { panic!() };
        assert_eq!((put.files.len(), put.recursive, put.jobs), (2, true, Jobs(3)));
        let args = ["ronctl", "pack", "dir", "--tld", "site", "--payment-price", "1"];
        let Command::Pack(pack) = Args::try_parse_from(args).unwrap().command else { panic!() };
        assert_eq!(pack.encodings, Encodings { br: true, zstd: true });
        assert_ne!(pack.payment, PaymentTerms::default());
        let address = Address::of(b"x").to_string();
        for wrong in [
            &["ronctl", "pack"][..],
            &["ronctl", "pack", "a", "b"],
            &["ronctl", "pack", "a", "--tld", "A"],
            &["ronctl", "unpack", &address],
            &["ronctl", "unpack", "b3:00", "d"],
            &["ronctl", "unpack", &address, "d", "--name", "n"],
            &["ronctl", "put", "-r"],
        ] {
            assert!(Args::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
