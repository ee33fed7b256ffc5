use super::*;

#[test]
fn the_command_tree_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for() {
    fn check(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
            assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
            check(sub);
        }
    }
    check(&command());
}

#[test]
fn a_job_needs_exactly_one_token_source_and_a_command() {
    for bad in [
        &["gateway-agent", "exec", "--", "true"][..],
        &["gateway-agent", "exec", "--token-env", "A", "--token-file", "b", "--", "true"],
        &["gateway-agent", "exec", "--token-env", "A"],
        &["gateway-agent", "release"],
    ] {
        assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
    }
    let good = ["gateway-agent", "exec", "--token-env", "A", "--", "psql", "--json", "-c", "select 1"];
    let cli = Cli::try_parse_from(good).unwrap();
    assert!(!cli.global.json, "options after -- are the command's");
}

#[test]
fn a_cause_is_not_told_twice() {
    let inner = std::io::Error::other("disk on fire");
    let outer = crate::config::ConfigError::Read { path: "/x".into(), source: inner, hint: "water" };
    let text = told(&anyhow::Error::new(outer).context("start"));
    assert_eq!(text, "start: /x: disk on fire\n  hint: water");
}
