//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    gateway_agent::cli::main()
}
