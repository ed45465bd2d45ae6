//! Tokens: 256 random bits that say who calls. Only their SHA-256 is ever stored.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};

/// What every token begins with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "fr_";

/// A secret that lets its bearer call a coordinator. It is neither comparable nor printable; whoever
/// has to show it says so by [`Token::reveal`].
#[derive(Clone)]
pub struct Token([u8; 32]);

/// A text is no token. It is not repeated: it may be a secret all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is {PREFIX} and 64 hexadecimal digits, as `fittingroom token create` printed it")]
pub struct TokenError;

/// The SHA-256 of a token's bits, by which a coordinator knows it. The bits are random, so that nobody
/// finds them from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl Token {
    /// Wraps bits from the operating system's random generator.
    pub const fn from_bits(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// The token as text, for the one who is to have it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }

    /// What is stored of it.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0).into())
    }

    /// The value of a call's `authorization` header, marked so that it is neither logged nor put into
    /// a compression table.
    pub(super) fn header(&self) -> Option<MetadataValue<Ascii>> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", self.reveal())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TokenError)?;
        blake3::Hash::from_hex(digits).map(|bits| Self(*bits.as_bytes())).map_err(|_| TokenError)
    }
}

impl TokenDigest {
    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl FromStr for TokenDigest {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| TokenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_its_digest_is_sha_256() {
        let token = Token::from_bits([0; 32]);
        let again: Token = token.reveal().parse().expect("a token");
        assert_eq!(again.digest(), token.digest());
        // `head -c 32 /dev/zero | sha256sum`
        let expected = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(token.digest().to_string(), expected);
        assert_eq!(expected.parse(), Ok(token.digest()));
        for wrong in ["", "fr_", "fr_12", &"0".repeat(64), &format!("fr_{}", "g".repeat(64))] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong:?} was accepted");
        }
    }
}
