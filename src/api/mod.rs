//! (being written)

mod credentials;

pub use credentials::{ApiKey, InvalidApiKey};
