//! Kiln's behaviour, through its built programs.
