//! The `strongroom` program; everything it does is in the library.

fn main() -> std::process::ExitCode {
    strongroom::cli::main()
}
