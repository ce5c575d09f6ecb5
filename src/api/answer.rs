//! What comes back from one try: the answer as far as it is looked at, or why there is none.

use bytes::Bytes;
use reqwest::redirect;
use url::Url;

use crate::api::client::Outgoing;
use crate::api::error::ApiError;

/// How many redirects within the host are followed.
const REDIRECTS: usize = 5;

/// An answer.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) html: bool,
    /// The store's mark of what it was sent.
    pub(crate) etag: Option<String>,
    pub(crate) body: Bytes,
}

impl Got {
    /// Whether something in between says that nobody is there.
    pub(crate) fn is_from_nobody(&self) -> bool {
        matches!(self.status, 502..=504)
    }

    /// Whether it is a success that whoever was asked would not say so: a proxy's page must not pass for an
    /// acknowledgement.
    pub(crate) fn is_odd(&self, out: &Outgoing<'_>) -> bool {
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok();
        (200..300).contains(&self.status) && if out.to_api { !is_json() } else { self.html }
    }
}

/// Only a redirect that keeps the method and the body: after any other, a `POST` would come back as a `GET` that the
/// answer of a login page makes look like an acknowledgement.
pub(crate) fn follow_within_the_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let keeps_the_request = matches!(attempt.status().as_u16(), 307 | 308);
    let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    let same = attempt.previous().last().is_some_and(|previous| origin(previous) == origin(attempt.url()));
    if keeps_the_request && same && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
}

pub(crate) fn no_answer(place: &str, error: &reqwest::Error) -> ApiError {
    let why = why(error);
    if is_hopeless(error) {
        ApiError::Protocol { place: place.to_owned(), why }
    } else {
        ApiError::NoAnswer { place: place.to_owned(), why }
    }
}

/// The innermost cause is the one that tells a person something: `connection refused`, `name not known`.
pub(crate) fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Errors that stay: a certificate that is not trusted, a request that cannot be built.
pub(crate) fn is_hopeless(error: &reqwest::Error) -> bool {
    if error.is_builder() {
        return true;
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented);
        }
        // An IO error holds what it was made from without being its source.
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            cause = Some(inner);
            continue;
        }
        cause = error.source();
    }
    false
}
