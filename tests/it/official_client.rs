//! The official client is content with the tests' server: so what it holds can be trusted.
