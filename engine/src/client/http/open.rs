//! Opening an object to read it as a stream, from any byte on, with what the node says of it.

use ron_codec::address::Address;
use ureq::{
    Body,
    http::{HeaderMap, StatusCode},
};

use super::{
    AnswerFault, ClientError, Http, MEDIA_TYPE, check_identity, content_length,
    parse_content_range, refusal, text,
};
use crate::archive::Fields;

/// An object that is about to be read.
pub(in crate::client) struct Opened {
    /// Bytes of the whole object.
    pub(in crate::client) size: u64,
    pub(in crate::client) fields: Fields,
    /// What is left of it.
    pub(in crate::client) body: Body,
}

impl Http {
    /// Opens an object to be read from the byte `from` on.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(in crate::client) fn open(
        &self,
        address: &Address,
        from: u64,
    ) -> Result<Opened, ClientError> {
        let mut request = self.authorize(self.agent.get(self.node.object(Some(address))));
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let mut response = request.call().map_err(|error| self.failure(error))?;
        let headers = response.headers();
        let size = match response.status() {
            StatusCode::OK if from == 0 => content_length(headers).ok_or(AnswerFault::NoLength)?,
            StatusCode::OK => return Err(AnswerFault::RangeIgnored.into()),
            StatusCode::PARTIAL_CONTENT if from > 0 => size_of_range(headers, from)?,
            StatusCode::NOT_FOUND => return Err(ClientError::NotFound { address: *address }),
            _ => return Err(refusal(&mut response)),
        };
        check_identity(headers)?;
        let media_type = text(headers, "Content-Type").filter(|text| *text != MEDIA_TYPE);
        let fields = Fields::new(media_type, text(headers, "Content-Disposition"));
        Ok(Opened { size, fields, body: response.into_body() })
    }
}

/// The size of an object, in an answer that brings all from `from` on.
fn size_of_range(headers: &HeaderMap, from: u64) -> Result<u64, AnswerFault> {
    let value = text(headers, "Content-Range").unwrap_or_default();
    let size = match parse_content_range(value) {
        Some((first, last, Some(size))) if first == from && last + 1 == size => Some(size),
        _ => None,
    };
    size.ok_or_else(|| AnswerFault::ContentRange { value: value.to_owned() })
}
