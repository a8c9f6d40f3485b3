//! Who asks the admin listener: what its connection and its fields say of a sender.
//!
//! The rules are those of the listeners for content (`ron_codec::authority`). Orders, and what
//! costs as much as one, want the authority of a write. What is shown is kept from pages in a
//! browser and from proxies. Whether the node is alive and ready is no secret, and load balancers
//! that ask for it send whatever `Host` they like, so those two routes are open.

use std::sync::{Arc, PoisonError};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, Version, header},
    middleware::Next,
    response::Response,
};
use ron_codec::authority::{Sender, bearer, is_page_field, is_proxy_field};

use crate::{
    admin::Admin,
    conn::Client,
    refused::{Refused, refusal},
};

/// What is known of the sender of this request.
pub(crate) fn sender<'a>(
    client: &Client,
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Sender<'a> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let mut sender = Sender {
        local: client.is_local(),
        // RFC 9112 §3.2.2: an authority in the target outweighs the field.
        host: uri.authority().map(|authority| authority.as_str().as_bytes()).or(host),
        proxied: version < Version::HTTP_11,
        page: false,
        token: authorization.and_then(bearer),
    };
    // Which of two is meant, another reader may see otherwise.
    let repeated = |name| headers.get_all(name).iter().nth(1).is_some();
    sender.proxied |= repeated(header::HOST) || repeated(header::AUTHORIZATION);
    for (name, value) in headers {
        sender.proxied |= is_proxy_field(name.as_str());
        sender.page |= is_page_field(name.as_str(), value.as_bytes());
    }
    sender
}

/// Whether a GET of this costs as much as an order, or shows what only its address opened before.
fn costs(uri: &Uri) -> bool {
    ["/debug/profile", "/objects"].contains(&uri.path())
}

/// Passes on requests whose sender may do what their method says: look, or change something.
pub(crate) async fn guard(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    request: Request,
    next: Next,
) -> Response {
    let (headers, method) = (request.headers(), request.method());
    let sender = sender(&client, request.version(), request.uri(), headers);
    let looks = [Method::GET, Method::HEAD].contains(method) && !costs(request.uri());
    let allowed = {
        let authority = admin.authority.read().unwrap_or_else(PoisonError::into_inner);
        if looks { authority.may_look(&sender) } else { authority.may_write(&sender) }
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(denied) => refusal(headers, Refused::Denied(denied)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ron_codec::authority::{Authority, Denied, Distrust};

    use super::*;

    fn judged(
        peer: &str,
        version: Version,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> [Option<Denied>; 2] {
        let peer: SocketAddr = peer.parse().unwrap();
        let (client, uri) = (Client::of(peer), uri.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let sender = sender(&client, version, &uri, &headers);
        let authority = Authority::default();
        [authority.may_look(&sender).err(), authority.may_write(&sender).err()]
    }

    #[test]
    fn fields_and_connection_make_the_sender() {
        let (near, far) = ("127.0.0.1:1", "192.0.2.1:1");
        let local = ("Host", "localhost:9096");
        let no = |why| Some(Denied::NotTrusted(why));
        let both = |why| [no(why), no(why)];
        for (peer, fields, expected) in [
            (near, &[local][..], [None, None]),
            ("[::ffff:127.0.0.1]:1", &[local], [None, None]),
            (far, &[local], [None, no(Distrust::Remote)]),
            (near, &[("Host", "evil.example")], both(Distrust::Name)),
            (near, &[local, ("X-Forwarded-For", "192.0.2.9")], both(Distrust::Proxied)),
            (near, &[local, ("Via", "1.1 x")], both(Distrust::Proxied)),
            (near, &[local, ("Origin", "http://localhost:9096")], both(Distrust::Page)),
            (near, &[local, ("Sec-Fetch-Site", "none")], [None, None]),
            (
                near,
                &[local, ("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
                both(Distrust::Page),
            ),
            (
                near,
                &[local, ("Authorization", "Bearer x")],
                [Some(Denied::TokenUnknown), Some(Denied::TokenUnknown)],
            ),
        ] {
            assert_eq!(judged(peer, Version::HTTP_11, "/", fields), expected, "{peer} {fields:?}");
        }
        assert_eq!(judged(near, Version::HTTP_10, "/", &[]), both(Distrust::Proxied));
        let absolute = judged(near, Version::HTTP_11, "http://evil.example/", &[local]);
        assert_eq!(absolute, both(Distrust::Name));
    }
}
