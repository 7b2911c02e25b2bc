//! Dockerfiles as data: parsing, expansion of variables, stages and lint, without any I/O.
//!
//! A Dockerfile is parsed once, into instructions that still hold their words as written, each
//! with the lines it stands on. What depends on the build (arguments, the environment, the base
//! image) is expanded word by word while the stages are turned into a graph.
//!
//! Input is taken to be hostile: parsing and expansion never panic, take time in proportion to
//! what they read, and refuse what would grow without bound.
//!
//! ```
//! use kiln_dockerfile::{Dockerfile, instruction::Command};
//!
//! let file = Dockerfile::parse(b"FROM alpine AS base\nENV HOME=/root\n")?;
//! assert_eq!(file.stages[0].name.as_deref(), Some("base"));
//! assert!(matches!(file.stages[0].instructions[0].command, Command::Env(_)));
//!
//! let error = Dockerfile::parse(b"FROM alpine\nRNU true\n").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "dockerfile parse error on line 2: unknown instruction: RNU (did you mean RUN?)"
//! );
//! # Ok::<(), kiln_dockerfile::ParseError>(())
//! ```

#![forbid(unsafe_code)]

mod dockerfile;
mod location;

mod directive;
mod heredoc;
mod lines;
mod words;

mod csv;
mod duration;
mod flags;
mod json;
mod path;
mod size;

pub mod expand;
pub mod instruction;
pub mod plan;

pub mod lint;

mod error;
mod excerpt;
mod suggest;

pub use csv::{CsvError, fields as csv_fields};
pub use directive::{Directive, Directives, detect_syntax};
pub use dockerfile::{Dockerfile, GlobalArg, MOST_BYTES};
pub use error::{ErrorKind, ParseError};
pub use excerpt::excerpt;
pub use heredoc::Heredoc;
pub use lines::Comments;
pub use location::Location;
pub use suggest::closest;
