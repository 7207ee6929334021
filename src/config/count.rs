//! A number that the worker may be left to choose.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of at least 1, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Count {
    /// This many.
    Number(usize),
    /// The worker chooses.
    Word(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// The worker chooses.
    Auto,
}

/// One type rather than two alternatives, so that text from the environment is known to be a number.
impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "minimum": 1, "pattern": "^auto$"})
    }
}

impl Count {
    /// `auto`.
    pub const AUTO: Self = Self::Word(Auto::Auto);

    /// The number, if one was given.
    pub fn number(self) -> Option<usize> {
        match self {
            Self::Number(number) => Some(number),
            Self::Word(Auto::Auto) => None,
        }
    }
}
