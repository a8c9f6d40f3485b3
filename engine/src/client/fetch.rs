//! Where objects are fetched from: HTTP, or OAP/1 where that was asked for.

use ron_codec::address::Address;
use rustls::pki_types::CertificateDer;

use super::{
    args::{HostPort, Range, Shared},
    download::Download,
    error::ClientError,
    http::{Contact, Http},
    oap::Oap,
    tls,
};

/// A node that objects can be fetched from, for every thread that does.
pub(super) enum Origin<'a> {
    Http(Contact<'a>),
    Oap { shared: &'a Shared, at: &'a HostPort, name: Option<&'a str>, ca: Ca },
}

type Ca = Vec<CertificateDer<'static>>;

/// Connections of one thread.
pub(super) enum Fetcher<'a> {
    Http(Box<Http>),
    Oap(Oap<'a>),
}

impl<'a> Origin<'a> {
    /// OAP/1 at a place, if there is one, and else the node of the arguments.
    pub(super) fn from_args(
        shared: &'a Shared,
        oap: Option<&'a HostPort>,
        name: Option<&'a str>,
    ) -> Result<Self, ClientError> {
        match oap {
            None => Contact::from_args(shared, &shared.node).map(Origin::Http),
            Some(at) => {
                let ca = tls::trusted(shared.ca.as_deref())?;
                Ok(Origin::Oap { shared, at, name, ca })
            }
        }
    }

    pub(super) fn fetcher(&self) -> Fetcher<'_> {
        match self {
            Origin::Http(contact) => Fetcher::Http(Box::new(contact.http())),
            Origin::Oap { shared, at, name, ca } => {
                let (cap, timeout) = (shared.cap.as_ref(), shared.timeout.0);
                Fetcher::Oap(Oap { at, name: *name, cap, ca, timeout })
            }
        }
    }
}

impl Fetcher<'_> {
    /// Fetches an object, or a part of it, into `download`. Returns whether it was verified.
    ///
    /// # Errors
    ///
    /// Those of the connection, the node and the download.
    pub(super) fn get(
        &self,
        address: &Address,
        range: Option<&Range>,
        download: &mut Download,
    ) -> Result<bool, ClientError> {
        match self {
            Fetcher::Http(http) => http.get(address, range, download),
            Fetcher::Oap(oap) => oap.get(address, range, download),
        }
    }
}
