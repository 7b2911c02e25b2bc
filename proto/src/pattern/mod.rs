//! Path patterns: `.dockerignore`, include and exclude lists, and single wildcards.
//!
//! Three layers, each usable alone: [`glob_match`] is Go's `filepath.Match`; [`Pattern`] is one
//! line of an ignore file, compiled; [`Matcher`] is an ordered list of them in which a later line
//! overrides an earlier one and `!` makes an exception. [`read_ignore_file`] gives the lines.
//!
//! ```
//! use kiln_proto::pattern::{Matcher, read_ignore_file};
//!
//! let lines = read_ignore_file(b"# objects\n**/*.o\n!keep/**\n")?;
//! let ignored = Matcher::new(&lines)?;
//! assert!(ignored.matches("src/main.o"));
//! assert!(!ignored.matches("keep/main.o"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clean;
mod glob;
mod ignore_file;
mod line;
mod matcher;
mod program;

pub use clean::clean_path;
pub use glob::{BadGlob, glob_match};
pub use ignore_file::{IgnoreFileError, read_ignore_file};
pub use line::Pattern;
pub use matcher::{BadPattern, Matched, Matcher};
