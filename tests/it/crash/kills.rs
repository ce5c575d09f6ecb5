//! Kills by chance.
