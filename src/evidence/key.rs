//! Ed25519 keys as files: the private one signs checkpoints, the public ones prove them.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use super::link::{Hex, Instance};

/// What stands before the key in a public key's DER (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const MAKE: &str = "`openssl genpkey -algorithm ed25519 -out checkpoints.pem` makes one";
const MAKE_PUBLIC: &str = "`moderato audit public-key` prints one";

/// Signs.
pub struct SigningKey(Ed25519KeyPair);

/// Proves what the private key of the same pair has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Which key: the first half of the public key's SHA-256.
pub type KeyId = Hex<16>;

impl SigningKey {
    /// Reads PKCS#8 (PEM or DER), or a seed of 32 bytes as it is or as hex.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = read(path)?;
        let wrong = |_| format!("`{}` holds no ed25519 private key; {MAKE}", path.display());
        let pair = match contents(&bytes, "PRIVATE KEY") {
            Contents::Raw(seed) => Ed25519KeyPair::from_seed_unchecked(&seed),
            Contents::Der(der) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der),
        };
        pair.map(Self).map_err(wrong)
    }

    /// The other half of the pair.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }

    /// The signature.
    pub fn sign(&self, message: &[u8]) -> Hex<64> {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        Hex(signature)
    }
}

/// Whose key it is, and never the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl PublicKey {
    /// Reads a public key in PEM or DER, or 32 bytes as they are or as hex.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = read(path)?;
        let key = match contents(&bytes, "PUBLIC KEY") {
            Contents::Raw(key) => Some(key),
            Contents::Der(der) => der.strip_prefix(&SPKI).and_then(|key| key.try_into().ok()),
        };
        key.map(Self).ok_or_else(|| format!("`{}` holds no ed25519 public key; {MAKE_PUBLIC}", path.display()))
    }

    /// Its name in checkpoints.
    pub fn id(&self) -> KeyId {
        let digest: [u8; 32] = Sha256::digest(self.0).into();
        Hex::from(digest)
    }

    /// As PEM, which OpenSSL reads too.
    pub fn pem(&self) -> String {
        let der = [SPKI.as_slice(), &self.0].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(der))
    }

    /// Whether the private key of this pair has signed the message.
    pub fn proves(&self, message: &[u8], signature: &Hex<64>) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }
}

/// For a chain that begins; `None` if the system has none to give.
pub fn draw() -> Option<Instance> {
    let mut instance = [0; 8];
    SystemRandom::new().fill(&mut instance).ok().map(|()| Hex(instance))
}

enum Contents {
    Raw([u8; 32]),
    Der(Vec<u8>),
}

fn contents(bytes: &[u8], label: &str) -> Contents {
    if let Ok(raw) = bytes.try_into() {
        return Contents::Raw(raw);
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    if let Ok(Hex(raw)) = text.parse() {
        return Contents::Raw(raw);
    }
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let body = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map(|(body, _)| body);
    let body = body.map(|body| body.split_whitespace().collect::<String>());
    let der = body.and_then(|body| STANDARD.decode(body).ok());
    Contents::Der(der.unwrap_or_else(|| bytes.to_vec()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519`, and `openssl pkey -pubout` of it.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJERAfXQqfIwMYjbw6oJjzo3KgxO5Mv9y652C5+ULY3j\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA/sDqxGs/WcSULsBq2Ol3tLfg1K+BJp7pxIZHwYZuXyo=\n-----END PUBLIC KEY-----\n";

    fn file(contents: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn keys_made_by_openssl_are_read_and_belong_together() {
        let key = SigningKey::load(file(PRIVATE).path()).unwrap();
        let public = PublicKey::load(file(PUBLIC).path()).unwrap();
        assert_eq!((key.public(), public.pem().as_str()), (public.clone(), PUBLIC.trim_end()));
        let signature = key.sign(b"a statement");
        assert!(public.proves(b"a statement", &signature));
        assert!(!public.proves(b"another statement", &signature));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_seed_may_be_bytes_or_hex_and_nothing_else_is_taken_for_a_key() {
        let (raw, hex) = (file([5; 32]), file(format!("{}\n", "05".repeat(32))));
        let keys = [raw, hex].map(|file| SigningKey::load(file.path()).unwrap().public());
        assert_eq!(keys[0], keys[1]);
        for wrong in ["", "rosebud", PUBLIC] {
            let said = SigningKey::load(file(wrong).path()).unwrap_err();
            assert!(said.contains("openssl genpkey") && !said.contains("rosebud"), "{said}");
        }
        assert!(PublicKey::load(file(PRIVATE).path()).is_err());
        assert!(SigningKey::load(Path::new("no/such/file")).unwrap_err().contains("cannot be read"));
    }
}
