//! The checksum of the record framing: CRC-32C, masked so that a checksum of data that holds checksums stays useful.
//!
//! Pure. Computed with the processor's own instruction where there is one.

/// What the masking adds after the rotation.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Returns the masked CRC-32C of the bytes, as it stands in the framing.
#[inline]
pub fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(&24_u64.to_le_bytes()), 0x224b_7fa3);
    }
}
