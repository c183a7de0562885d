//! Who asks: a story id such as `AH-011`.
//!
//! Promise: a `Story` that exists is well-formed. It is 1 to 256 bytes of text without control
//! characters, so it can stand in a message, a JSON line and a terminal as it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The longest story id, in bytes of UTF-8.
pub const MAX_STORY_BYTES: usize = 256;

/// The longest reason, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 1024;

/// A well-formed story id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Story(String);

impl Story {
    /// The story of this id.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_VALUE` when it is empty, longer than 256 bytes, or has control characters.
    pub fn new(id: impl Into<String>) -> Result<Story, Error> {
        let id = id.into();
        let wrong = |rule| Err(Error::invalid("storyId", rule));
        if id.is_empty() {
            return wrong(
                "must not be empty: name the story that asks, such as AH-011.".to_owned(),
            );
        }
        if id.len() > MAX_STORY_BYTES {
            let length = id.len();
            return wrong(format!(
                "must be at most {MAX_STORY_BYTES} bytes long. Received {length} bytes."
            ));
        }
        if id.chars().any(char::is_control) {
            return wrong(format!("must have no control characters. Received {id:?}."));
        }
        Ok(Story(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether words that somebody gives under this name can stand in a record, a message and a terminal.
///
/// # Errors
/// `ERR_INVALID_ARG_VALUE` when they are longer than 1024 bytes, or have control characters.
pub fn check_words(name: &str, words: &str) -> Result<(), Error> {
    let length = words.len();
    if length > MAX_REASON_BYTES {
        let rule =
            format!("must be at most {MAX_REASON_BYTES} bytes long. Received {length} bytes.");
        return Err(Error::invalid(name, rule));
    }
    if words.chars().any(char::is_control) {
        return Err(Error::invalid(name, "must have no control characters."));
    }
    Ok(())
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Story {
    type Error = Error;

    fn try_from(id: String) -> Result<Story, Error> {
        Story::new(id)
    }
}

impl From<Story> for String {
    fn from(story: Story) -> String {
        story.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_script_are_stories_and_control_characters_are_not() {
        for id in ["AH-011", "история", "a b", "\u{1F512}"] {
            assert_eq!(Story::new(id).expect("well-formed").as_str(), id);
        }
        for id in ["", "a\nb", "a\0", "\u{7f}", "\u{85}"] {
            assert!(Story::new(id).is_err(), "{id:?} must be refused");
        }
    }

    #[test]
    fn the_length_counts_bytes() {
        assert!(Story::new("x".repeat(256)).is_ok());
        assert!(Story::new("x".repeat(257)).is_err());
        assert!(Story::new("é".repeat(129)).is_err());
    }
}
