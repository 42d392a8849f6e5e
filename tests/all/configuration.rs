//! The part of docs/configuration.md about repositories: the place of the file, `--repo NAME`, and passwords.

use crate::common;

use common::{Lab, PASSWORD, fails, run, text, write};
use std::path::Path;
use std::process::Command;

/// A laboratory whose configuration names its repository `main`, with the password in a file.
fn configured() -> Lab {
    let lab = Lab::new();
    write(&lab.path("password"), format!("{PASSWORD}\n"));
    chmod_600(&lab.path("password"));
    write(&lab.path("strongroom.toml"), MAIN);
    lab
}

const MAIN: &str = "[repositories.main]\nurl = \"repository\"\npassword = { file = \"password\" }\n";
const OTHER: &str = "[repositories.other]\nurl = \"/no such folder\"\n";

fn chmod_600(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Returns a command that gets the repository and the password only from the configuration.
fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.command(args);
    command.env_remove("STRONGROOM_REPO").env_remove("STRONGROOM_PASSWORD");
    command.env("STRONGROOM_CONFIG", lab.path("strongroom.toml"));
    command
}

/// An error names the list that it is about, and a list with far too many patterns is refused at once.
#[test]
fn too_many_patterns_are_refused_at_once_and_by_the_name_of_their_list() {
    let lab = Lab::empty();
    let ids = "[tenants.a]\ntenant_id = \"contoso.com\"\nclient_id = \"a\"\n[sets.s]\ntenant = \"a\"\n";
    let refused = |key: &str, patterns: Vec<String>| {
        write(&lab.path("config/strongroom/strongroom.toml"), format!("{ids}{key} = {patterns:?}\n"));
        fails(&mut lab.command(["tenant", "users", "nobody"]), 2)
    };
    for key in ["include", "exclude"] {
        let many: Vec<_> = (0..200_000).map(|number| format!("Users/u{number}*/**")).collect();
        let said = refused(key, many.clone());
        assert!(said.contains(&format!("sets.s.{key}")) && said.contains("there are 200000 patterns"), "{said}");
        for (pattern, problem) in
            [("Users/[", "has no `]`"), ("Nowhere/*", "can match nothing"), ("Users/a**", "must stand alone")]
        {
            let said = refused(key, vec!["Users/*".to_owned(), pattern.to_owned()]);
            assert!(said.contains(&format!("sets.s.{key}")) && said.contains(problem), "{said}");
        }
        let said = refused(key, many[..10_000].to_vec());
        assert!(said.contains("there is no tenant called `nobody`"), "as many as there may be: {said}");
    }
}

#[test]
fn the_only_repository_needs_no_name() {
    let lab = configured();
    for args in [&["snapshots"][..], &["snapshots", "--repo", "main"], &["snapshots", "-rmain"]] {
        let output = run(&mut command(&lab, args), 0);
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
    run(command(&lab, &["snapshots"]).env("STRONGROOM_REPO", "main"), 0);

    write(&lab.path("strongroom.toml"), [MAIN, OTHER].concat());
    let said = fails(&mut command(&lab, &["snapshots"]), 2);
    assert!(said.contains("several: main, other") && said.contains("Hint: choose one with `--repo NAME`"), "{said}");
    run(&mut command(&lab, &["snapshots", "--repo", "main"]), 0);
    let said = fails(&mut command(&lab, &["snapshots", "--repo", "other"]), 10);
    assert!(said.contains("no repository at /no such folder"), "{said}");
}

#[test]
fn a_folder_wins_where_it_has_a_slash_or_nothing_has_its_name() {
    let lab = configured();
    std::fs::rename(lab.repository(), lab.path("main")).unwrap();
    // The name stands for the folder `repository`, which is gone.
    fails(&mut command(&lab, &["snapshots", "--repo", "main"]), 10);
    run(command(&lab, &["snapshots", "--repo", "./main"]).env("STRONGROOM_PASSWORD", PASSWORD), 0);
    std::fs::rename(lab.path("main"), lab.path("elsewhere")).unwrap();
    run(command(&lab, &["snapshots", "--repo", "elsewhere"]).env("STRONGROOM_PASSWORD", PASSWORD), 0);
    // The password of the configuration is used only for the repository that it belongs to.
    let said = fails(&mut command(&lab, &["snapshots", "--repo", "elsewhere"]), 2);
    assert!(said.contains("no password is given"), "{said}");
}

#[test]
fn a_given_password_overrides_the_configured_one() {
    let lab = configured();
    run(command(&lab, &["snapshots"]).env("STRONGROOM_PASSWORD", "wrong"), 12);
    write(&lab.path("wrong"), "wrong\n");
    chmod_600(&lab.path("wrong"));
    run(&mut command(&lab, &["snapshots", "--password-file", "wrong"]), 12);
    write(&lab.path("password"), "wrong\n");
    run(&mut command(&lab, &["snapshots"]), 12);
    run(command(&lab, &["snapshots"]).env("STRONGROOM_PASSWORD", PASSWORD), 0);

    for (secret, exit) in [
        ("{ env = \"REPOSITORY_SECRET\" }", 0),
        ("{ env = \"NO_SUCH_SECRET\" }", 2),
        ("{ command = \"echo $REPOSITORY_SECRET\" }", 0),
        ("{ command = \"exit 1\" }", 2),
        ("{ file = \"no such file\" }", 2),
    ] {
        write(
            &lab.path("strongroom.toml"),
            format!("[repositories.main]\nurl = \"repository\"\npassword = {secret}\n"),
        );
        let mut command = command(&lab, &["snapshots"]);
        command.env("REPOSITORY_SECRET", PASSWORD);
        match exit {
            0 => drop(run(&mut command, 0)),
            _ => {
                let said = fails(&mut command, exit);
                assert!(said.contains("strongroom.toml, line 3, `repositories.main.password`"), "{said}");
                assert!(said.contains("Hint: "), "{said}");
            }
        }
    }
}

#[test]
fn a_new_repository_takes_the_configured_password() {
    let lab = configured();
    std::fs::remove_dir_all(lab.repository()).unwrap();
    run(&mut command(&lab, &["init", "--password-memory", "1"]), 0);
    run(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", PASSWORD), 0);
}

#[test]
fn a_mount_in_the_background_knows_the_configured_repository() {
    if common::no_fuse() {
        return;
    }
    let lab = configured();
    let at = lab.new_mount_point();
    run(command(&lab, &["mount", "--quiet"]).arg(&at), 0);
    let mounted = common::is_mounted(&at);
    common::tool("fusermount3", [std::ffi::OsStr::new("-u"), at.as_os_str()]);
    assert!(mounted);
}

#[test]
fn the_file_is_looked_for_where_it_is_said_to_be() {
    let lab = configured();
    let without = || {
        let mut command = command(&lab, &["snapshots"]);
        command.env_remove("STRONGROOM_CONFIG");
        command
    };
    let said = fails(&mut without(), 2);
    assert!(said.contains("no repository is named") && said.contains("Hint: "), "{said}");
    run(without().args(["--config", "strongroom.toml"]), 0);
    // The option overrides the environment.
    run(without().env("STRONGROOM_CONFIG", "/no such file").args(["--config", "strongroom.toml"]), 0);
    let said = fails(without().env("STRONGROOM_CONFIG", "/no such file"), 2);
    assert!(said.contains("there is no configuration file /no such file"), "{said}");

    let text = MAIN.replace("\"repository\"", &format!("{:?}", lab.repository()));
    let text = text.replace("\"password\"", &format!("{:?}", lab.path("password")));
    write(&lab.path("config/strongroom/strongroom.toml"), &text);
    run(&mut without(), 0);
    write(&lab.path("home/.config/strongroom/strongroom.toml"), &text);
    run(without().env_remove("XDG_CONFIG_HOME").env("HOME", lab.path("home")), 0);
}

#[test]
fn an_invalid_configuration_is_a_usage_error() {
    let lab = configured();
    for (text, place) in [
        ("[repositories.main\n", "line 1: this is not TOML"),
        ("[repositories.main]\nur = \"x\"\n", "line 2, `repositories.main.ur`: unknown key `ur`"),
        ("[sets.a]\ntenant = \"b\"\n", "line 2, `sets.a.tenant`: there is no table [tenants.b]"),
    ] {
        write(&lab.path("strongroom.toml"), text);
        let said = fails(&mut command(&lab, &["snapshots"]), 2);
        assert!(said.contains(&format!("strongroom.toml, {place}")), "{said}");
        // A command that needs nothing from the file does not read it.
        run(&mut lab.command(["snapshots"]), 0);
    }
    let secret = "hunter2";
    write(&lab.path("strongroom.toml"), MAIN.replace("{ file = \"password\" }", &format!("\"{secret}\"")));
    let said = fails(&mut command(&lab, &["snapshots"]), 2);
    assert!(said.contains("a secret must not stand in this file") && !said.contains(secret), "{said}");
}

#[test]
fn a_secret_file_that_everybody_can_read_gives_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let lab = configured();
    std::fs::set_permissions(lab.path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = text(&run(&mut command(&lab, &["snapshots"]), 0).stderr);
    assert!(said.contains("every user of this machine can read this secret") && said.contains("chmod 600"), "{said}");
}
