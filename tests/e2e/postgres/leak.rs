//! Attempts to get a masked value out of a real PostgreSQL.
//!
//! Every statement of `leak/cases.txt` runs in a job, as simple query, in the extended protocol with text and with
//! binary results, and in a pipeline that asks for no descriptions. Whatever the job's side of the wire receives, byte
//! by byte, must not hold a marker value nor a simple encoding of it; and each entry must end as it says, so that a
//! gateway that refuses everything fails as well.

use std::collections::BTreeMap;

use tests::World;

use crate::suite::{self, Case, Ran};

mod markers;

const SETUP: &str = include_str!("leak/setup.sql");
const CASES: &str = include_str!("leak/cases.txt");
const POLICY: &str = include_str!("leak/policy.yaml");

/// What COPY … FROM STDIN is fed: the key is there already.
const COPY: &[u8] = b"1\tagain\n";

#[test]
fn no_statement_gets_a_masked_value_out() {
    let world = World::builder()
        .policy(POLICY)
        .postgres(tests::postgres::Options {
            settings: vec!["shared_preload_libraries = 'pg_stat_statements'".into()],
            ..Default::default()
        })
        .up();
    world.db.ask(&markers::fill(SETUP));
    let cases = suite::read(CASES);
    let tagged = |case: &Case, tag: &str| case.tags.iter().any(|one| one == tag);
    let of = |tag: &str| cases.iter().filter(|case| tagged(case, tag)).collect::<Vec<_>>();
    let careful: Vec<_> =
        cases.iter().filter(|case| !tagged(case, "open") && !tagged(case, "code")).collect();
    let token = |repository: &str| {
        let subject = format!("repo:acme/{repository}:ref:refs/heads/main");
        let token = world.issuer.token(&subject, "gateway-agent");
        token.claim("repository", format!("acme/{repository}")).mint().expect("a token")
    };
    let mut ran = suite::run(&world, &token("careful"), &careful, COPY);
    ran.extend(suite::run(&world, &token("open"), &of("open"), COPY));
    ran.extend(suite::run(&world, &token("code"), &of("code"), COPY));

    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for one in &ran {
        *tally.entry(&one.case.expected).or_default() += 1;
        if let Some(leak) = markers::find(&one.outcome.received) {
            wrong.push(format!("LEAK   {}: {leak}", one.title()));
        }
        if let Err(why) = judge(one) {
            wrong.push(format!("{:9} {}: {why}", one.case.expected, one.title()));
        }
    }
    println!("{} statements, {} ways in all: {tally:?}", cases.len(), ran.len());
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), ran.len(), wrong.join("\n"));
    assert!(cases.len() >= 200);
    // The suite is blind unless its markers are what the server holds.
    let shown = world.db.ask("SELECT * FROM vault; SELECT encode(raw, 'base64'), md5(secret) FROM vault");
    assert!(markers::find(shown.as_bytes()).is_some());
}

/// Whether a case ended as it should.
fn judge(ran: &Ran<'_>) -> Result<(), String> {
    let outcome = &ran.outcome;
    if outcome.ended {
        return Err("the session ended".into());
    }
    let first = outcome.errors.first();
    let rule = first.and_then(|(_, text)| {
        let rest = text.strip_prefix("denied by policy rule ")?;
        Some(rest.split_once(": ").map_or(rest, |(rule, _)| rule))
    });
    match ran.case.expected.as_str() {
        "masked" | "runs" | "shows" => {
            if let Some((code, text)) = first {
                return Err(format!("{code} {text}"));
            }
        }
        "predicate" | "stored" => {
            let wanted = match ran.case.expected.as_str() {
                "predicate" => "builtin:masked-predicate",
                _ => "builtin:laundering",
            };
            if rule != Some(wanted) {
                return Err(format!("not refused by {wanted}: {first:?}"));
            }
        }
        "refused"
            if rule.is_none() && !first.is_some_and(|(_, text)| text.starts_with("the gateway does not")) =>
        {
            return Err(format!("not refused: {first:?}"));
        }
        "fails" => match first {
            None => return Err("no error".into()),
            Some(_) if rule.is_some() => return Err(format!("refused: {first:?}")),
            Some(_) => {}
        },
        "refused" => {}
        other => return Err(format!("`{other}` is nothing to expect")),
    }
    match ran.case.expected.as_str() {
        "masked" => hidden(ran),
        "shows" => {
            let wanted = ran.case.argument.as_bytes();
            let shown = outcome.received.windows(wanted.len()).any(|window| window == wanted);
            shown.then_some(()).ok_or_else(|| {
                format!(
                    "{:?} is not shown: {}",
                    ran.case.argument,
                    String::from_utf8_lossy(&outcome.received)
                )
            })
        }
        _ => Ok(()),
    }
}

/// Every cell is hidden, or one of those the case allows.
fn hidden(ran: &Ran<'_>) -> Result<(), String> {
    let allowed: Vec<&str> = ran.case.argument.split(' ').collect();
    let mut seen = 0;
    for cell in &ran.outcome.cells {
        seen += 1;
        let Some(cell) = cell else { continue };
        // In a binary jsonb, a version goes before the text.
        let text = cell.strip_prefix(b"\x01").unwrap_or(cell);
        let number = cell.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes).to_string());
        // The last is how text shows it in a bytea.
        let hidden = [&b"[redacted]"[..], b"\"[redacted]\"", b"\\x5b72656461637465645d"];
        let fine = hidden.contains(&text)
            || allowed.iter().any(|one| one.as_bytes() == text || number.as_deref() == Some(one));
        if !fine {
            return Err(format!("a cell holds {:?}", String::from_utf8_lossy(cell)));
        }
    }
    match seen + ran.outcome.copied.len() {
        0 => Err("no row came, so nothing was hidden".into()),
        _ => Ok(()),
    }
}
