//! [`Tokens`]: who may come with which secret, and what for. Only hashes of the secrets are kept.
//!
//! Knows nothing about requests.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// To ask the ensemble.
    Read,
    /// To change it.
    Admin,
}

/// Whoever has a token, wherever it is used from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenId([u8; 16]);

/// A token that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: TokenId,
    read: bool,
    admin: bool,
}

/// All of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens(Vec<Known>);

#[derive(Clone, PartialEq, Eq)]
struct Known {
    name: String,
    hash: [u8; 32],
    grant: Grant,
}

/// Why a file is none of tokens. No sentence quotes what may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// Not TOML, an unknown key, or a value of another kind.
    #[error("line {line}: {problem}")]
    Toml {
        /// Where.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// Nobody could come in.
    #[error("there are no [[tokens]]; allowed: at least one")]
    None,
    /// A name that is none.
    #[error("the name of token {0} is none; allowed: 1 to 64 characters")]
    Name(usize),
    /// Two tokens of a name, or of a secret.
    #[error("{0:?} is there twice, or its secret is; allowed: every name and every secret once")]
    Twice(String),
    /// A token that is for nothing.
    #[error("{0:?} has no scopes; allowed: \"read\", \"admin\" or both")]
    Scopes(String),
    /// None, or one that is easily guessed.
    #[error(
        "{0:?} has no secret that can be used; allowed: either token, of {SHORTEST} to {LONGEST} visible ASCII characters, or \
         sha256, the hash of one in 64 hexadecimal digits"
    )]
    Secret(String),
}

/// Whoever guesses needs more than this is worth.
const SHORTEST: usize = 16;
/// It travels with every request.
const LONGEST: usize = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tokens: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    scopes: Vec<Scope>,
    token: Option<String>,
    sha256: Option<String>,
}

impl Tokens {
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn from_toml(text: &str) -> Result<Self, TokensError> {
        let File { tokens } = toml::from_str(text).map_err(|error| of_toml(text, &error))?;
        let mut all: Vec<Known> = Vec::new();
        for (place, entry) in tokens.into_iter().enumerate() {
            let known = known(place + 1, entry)?;
            if all.iter().any(|other| other.name == known.name || other.hash == known.hash) {
                return Err(TokensError::Twice(known.name));
            }
            all.push(known);
        }
        if all.is_empty() { Err(TokensError::None) } else { Ok(Self(all)) }
    }

    /// Whose secret it is. How long that takes tells nothing of how much of one was right.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<Grant> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(known.grant);
            }
        }
        found
    }
}

impl Grant {
    pub(crate) fn allows(self, scope: Scope) -> bool {
        match scope {
            Scope::Read => self.read,
            Scope::Admin => self.admin,
        }
    }
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Debug for Tokens {
    /// The names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|known| &known.name)).finish()
    }
}

fn known(place: usize, entry: Entry) -> Result<Known, TokensError> {
    let Entry { name, scopes, token, sha256 } = entry;
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(TokensError::Name(place));
    }
    if scopes.is_empty() {
        return Err(TokensError::Scopes(name));
    }
    let hash = match (&token, &sha256) {
        (Some(token), None) => of_token(token),
        (None, Some(digits)) => of_digits(digits),
        _ => None,
    };
    let Some(hash) = hash else {
        return Err(TokensError::Secret(name));
    };
    let (read, admin) = (scopes.contains(&Scope::Read), scopes.contains(&Scope::Admin));
    let of_name: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let mut id = [0; 16];
    id.copy_from_slice(&of_name[..16]);
    Ok(Known { name, hash, grant: Grant { id: TokenId(id), read, admin } })
}

fn of_token(token: &str) -> Option<[u8; 32]> {
    let fits =
        (SHORTEST..=LONGEST).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Sha256::digest(token.as_bytes()).into())
}

fn of_digits(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// What the parser says without the line that it quotes: a secret may stand there.
fn of_toml(text: &str, error: &toml::de::Error) -> TokensError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let problem = error.message();
    // Of a value that is none the parser quotes some, too.
    let problem = if problem.contains("unknown field") || problem.contains("missing field") {
        problem.lines().next().unwrap_or_default().to_owned()
    } else {
        "it can't be read; allowed: [[tokens]] with name, scopes, and token or sha256".to_owned()
    };
    TokensError::Toml { line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "reader-reader-reader";

    #[test]
    fn a_token_is_found_by_its_secret_and_is_for_its_scopes() {
        let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"; // of "foo"
        let tokens = Tokens::from_toml(&format!(
            "[[tokens]]\nname = 'reader'\nscopes = ['read']\ntoken = '{READER}'\n\
             [[tokens]]\nname = 'both'\nscopes = ['admin', 'read']\nsha256 = '{hash}'"
        ))
        .unwrap();
        let allowed = |secret: &str| {
            let grant = tokens.find(secret.as_bytes())?;
            Some((grant.allows(Scope::Read), grant.allows(Scope::Admin)))
        };
        assert_eq!(allowed(READER), Some((true, false)));
        assert_eq!(allowed("foo"), Some((true, true)));
        for wrong in ["", "fo", "foo ", &READER[1..], &READER.to_uppercase(), hash] {
            assert_eq!(allowed(wrong), None, "{wrong:?}");
        }
        assert_ne!(tokens.find(READER.as_bytes()).unwrap().id, tokens.find(b"foo").unwrap().id);
        assert_eq!(format!("{tokens:?}"), "[\"reader\", \"both\"]");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let entry = |rest: &str| format!("[[tokens]]\nname = 'a'\n{rest}");
        for (text, words) in [
            (String::new(), "there are no [[tokens]]"),
            (entry("scopes = ['read']"), "\"a\" has no secret that can be used"),
            (entry("scopes = ['read']\ntoken = 'secret'"), "\"a\" has no secret that can be used"),
            (
                entry("scopes = ['read']\ntoken = 'secret secret secret'"),
                "\"a\" has no secret that can be used",
            ),
            (entry("scopes = ['read']\nsha256 = 'secret'"), "\"a\" has no secret that can be used"),
            (entry(&format!("scopes = []\ntoken = '{READER}secret'")), "\"a\" has no scopes"),
            (entry("scopes = ['secret']"), "line 3: it can't be read"),
            (entry("scopes = ['read']\ntoken = \"secret"), "line 4: it can't be read"),
            (entry("scopes = ['read']\ntoken = ['secret']"), "line 4: it can't be read"),
            (entry("colour = 1"), "line 3: unknown field `colour`"),
            (
                format!("[[tokens]]\nname = ''\nscopes = ['read']\ntoken = '{READER}secret'"),
                "the name of token 1 is none",
            ),
            (
                format!("{0}\n{0}", entry(&format!("scopes = ['read']\ntoken = '{READER}secret'"))),
                "\"a\" is there twice",
            ),
        ] {
            let error = Tokens::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(
                !error
                    .replace("has no secret", "")
                    .replace("its secret is", "")
                    .replace("every secret", "")
                    .contains("secret"),
                "{error}"
            );
        }
    }
}
