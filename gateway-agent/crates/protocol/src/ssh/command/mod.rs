//! Command lines, as the host's login shell reads them.
//!
//! [`read`] lists every program that would run, every file that redirections open and every variable that is set, without
//! running anything. It holds for POSIX shells: sh, dash, bash, ksh, zsh, busybox. What they read differently, and whatever is not
//! known here, makes the whole opaque, which only a rule with `opaque: true` grants.
//!
//! Programs that start others (`sudo`, `xargs`, `sh -c`) are looked through by the tables in `launch`. What a program does with
//! its arguments beyond that is its own affair: rules name them.

mod collect;
mod danger;
mod launch;
mod parse;
mod paths;
mod syntax;
mod transfer;
mod word;

#[cfg(test)]
mod tests;

use policy::Exec;

/// Longest command line read, in bytes.
pub const LENGTH_MAX: usize = 64 * 1024;

/// What a command line would do. Never fails: what cannot be read is in [`Exec::opaque`].
pub fn read(command: &[u8]) -> Exec {
    read_for(command, false)
}

/// The same; `terminal`: it runs on one, where some programs show their output by a pager, which runs whatever is typed.
pub fn read_for(command: &[u8], terminal: bool) -> Exec {
    let text = String::from_utf8_lossy(command);
    let refused = if command.len() > LENGTH_MAX {
        Some("it is too long to be read")
    } else if command.contains(&0) {
        Some("it contains a zero byte")
    } else if std::str::from_utf8(command).is_err() {
        Some("it is not UTF-8")
    } else {
        None
    };
    let mut collector = collect::Collector::new(terminal);
    match refused {
        Some(why) => collector.opaque(why),
        None => collector.text(&text, &mut Some("~".to_owned()), &[]),
    }
    let mut exec = collector.finish(text.chars().take(LENGTH_MAX).collect());
    if exec.invocations.is_empty()
        && exec.files.is_empty()
        && exec.assignments.is_empty()
        && exec.opaque.is_empty()
    {
        // A shell with nothing to do.
        exec.opaque.push("it names no command".to_owned());
    }
    exec
}
