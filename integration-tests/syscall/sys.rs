//! The call itself.
#![allow(unsafe_code)]

use crate::Argument;

/// Makes system call `number` with up to six arguments; the error is its number.
pub(crate) fn call(number: libc::c_long, arguments: &mut [Argument]) -> Result<i64, i32> {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => *number,
            Argument::Bytes(bytes) => bytes.as_mut_ptr() as i64,
        };
    }
    let [first, second, third, fourth, fifth, sixth] = words;
    // SAFETY: there is nothing that could be said of a call that is not known here. This program has
    // one thread and does nothing after it but print: what it may do harm to is itself.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if result < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        Ok(result)
    }
}
