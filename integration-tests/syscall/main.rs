//! Makes one system call, for tests of what steps may do: `kiln-test-syscall <number> <argument>…`.
//!
//! An argument is a number, or the address of bytes given as `text:…` or `hex:…`, or of as many
//! zeros as `zeros:…` says. It prints the result, or the name of the error, and exits with success
//! in both cases: a program that could not be run must not look like a call that was refused.

#![allow(clippy::print_stdout)] // What the program is for.

mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let number = args.next().and_then(|number| number.parse().ok());
    let parsed: Option<Vec<Argument>> = args.map(|text| Argument::parse(&text)).collect();
    let (Some(number), Some(mut arguments)) = (number, parsed) else {
        println!("usage: kiln-test-syscall <number> <argument>...");
        return ExitCode::FAILURE;
    };
    match sys::call(number, &mut arguments) {
        Ok(result) => println!("{result}"),
        Err(error) => println!("{}", name(error)),
    }
    ExitCode::SUCCESS
}

/// An argument of a system call.
enum Argument {
    Number(i64),
    Bytes(Vec<u8>),
}

impl Argument {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(':') {
            Some(("text", text)) => Self::Bytes([text.as_bytes(), b"\0"].concat()),
            Some(("hex", digits)) => Self::Bytes(hex::decode(digits).ok()?),
            Some(("zeros", count)) => Self::Bytes(vec![0; count.parse().ok()?]),
            Some(_) => return None,
            None => Self::Number(text.parse().ok()?),
        })
    }
}

/// The names of errors that tests tell apart; of any other its number.
fn name(error: i32) -> String {
    match error {
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::ESRCH => "ESRCH".to_owned(),
        other => format!("error {other}"),
    }
}
