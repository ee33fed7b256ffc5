//! Templates of paths.

use crate::pattern::{BadPattern, Glob, bad};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// One segment, text with wildcards that stay within it.
    Segment(Glob),
    /// `**`: any number of segments.
    Any,
}

/// A path with placeholders: `/repos/{owner}/{repo}/**`. `{name}` and `*` are one segment, `**` is any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    pieces: Vec<Piece>,
}

impl PathTemplate {
    pub(crate) fn new(text: &str) -> Result<Self, BadPattern> {
        let Some(rest) = text.strip_prefix('/') else {
            return bad(
                format!("`{text}` does not begin with a slash"),
                "write `/v2/**`; hosts go to `hosts`",
            );
        };
        let mut pieces = Vec::new();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            pieces.push(match segment {
                "" => return bad(format!("`{text}` has a slash too many"), "leave it out"),
                "." | ".." => {
                    return bad(
                        format!("`{text}` is not normalised"),
                        "paths with `.` and `..` are refused as ambiguous: leave them out",
                    );
                }
                "**" => Piece::Any,
                one => Piece::Segment(segment_glob(one, text)?),
            });
        }
        Ok(Self { pieces })
    }

    /// Whether it is this path. A slash at the end makes no difference.
    pub(crate) fn matches(&self, segments: &[String]) -> bool {
        fits(&self.pieces, segments)
    }
}

fn segment_glob(segment: &str, text: &str) -> Result<Glob, BadPattern> {
    if let Some(inner) = segment.strip_prefix('{') {
        let name = inner.strip_suffix('}').unwrap_or_default();
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return match plain {
            true => Glob::new("*"),
            false => bad(
                format!("`{text}`: `{segment}` is no placeholder"),
                "a placeholder is a whole segment, `{name}`; parts of one are `*`",
            ),
        };
    }
    if segment.contains(['{', '}']) {
        return bad(
            format!("`{text}`: a placeholder in a part of a segment"),
            "write `*`: `*.tar.gz`; `{name}` is a whole segment",
        );
    }
    if segment.contains('%') {
        return bad(
            format!("`{text}` is written encoded"),
            "paths are compared decoded: write the characters themselves",
        );
    }
    if segment.contains(['#', '\\']) {
        return bad(
            format!("`{text}` can be no path"),
            "write what follows the host, without query and fragment",
        );
    }
    if segment.contains("**") {
        return bad(
            format!("`{text}`: `**` stands for whole segments"),
            "write it between slashes, as `/v2/**/blobs`; `*` is any part of one segment",
        );
    }
    Glob::new(segment)
}

/// Each `**` takes as little as it can and more when the rest does not fit: at most the product of the lengths.
fn fits(pieces: &[Piece], segments: &[String]) -> bool {
    let (mut piece, mut at) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pieces.get(piece), segments.get(at)) {
            (None, None) => return true,
            (Some(Piece::Any), _) => {
                piece = piece.saturating_add(1);
                retry = Some((piece, at));
                continue;
            }
            (Some(Piece::Segment(glob)), Some(segment)) if glob.matches(segment) => {
                (piece, at) = (piece.saturating_add(1), at.saturating_add(1));
                continue;
            }
            _ => {}
        }
        // Let the last `**` take one segment more.
        match retry {
            Some((after, taken)) if taken < segments.len() => {
                let taken = taken.saturating_add(1);
                retry = Some((after, taken));
                (piece, at) = (after, taken);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(template: &str, path: &str) -> bool {
        let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        PathTemplate::new(template).unwrap().matches(&segments)
    }

    #[test]
    fn templates_are_whole_paths() {
        for (template, path, wanted) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/a", "/a/", true),
            ("/a/", "/a", true),
            ("/a", "/A", false),
            ("/a", "/a/b", false),
            ("/repos/{owner}/{repo}/**", "/repos/o/r", true),
            ("/repos/{owner}/{repo}/**", "/repos/o/r/issues/1", true),
            ("/repos/{owner}/{repo}/**", "/repos/o", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/v2/**/blobs/*", "/v2/a/b/blobs/x", true),
            ("/v2/**/blobs/*", "/v2/blobs/blobs/blobs/x", true),
            ("/v2/**/blobs/*", "/v2/a/b/manifests/x", false),
            ("/*.tar.gz", "/a.tar.gz", true),
            ("/*.tar.gz", "/a/b.tar.gz", false),
            ("/**/a/**/b", "/a/a/a/b", true),
            ("/**/a/**/b", "/a/a/a/c", false),
        ] {
            assert_eq!(is(template, path), wanted, "{template} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for wrong in ["a", "", "/a//b", "/a/../b", "/{a", "/{a}b", "/a**", "/%2F", "/a#b", "/{}", "/a\\b"] {
            PathTemplate::new(wrong).expect_err(wrong);
        }
    }
}
