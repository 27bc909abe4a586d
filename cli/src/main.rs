//! The `dunlin` binary.

fn main() -> std::process::ExitCode {
    dunlin_cli::main()
}
