//! What happens to a response's body on its way to the job.

use std::sync::Arc;

use mask::{BadJson, Detectors, JsonPath, JsonStream, Stream, Transform};

use super::coding::{BadCoding, Decoder};

/// Why the rest of a body is withheld.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    #[error(transparent)]
    Coding(#[from] BadCoding),
    #[error("values are masked there, and the response is not readable: {0}")]
    Json(#[from] BadJson),
    #[error("values of JSON are masked there, and the response is {0}")]
    NoJson(String),
}

/// What is looked for in a body, behind its content coding.
#[derive(Debug)]
pub enum Search {
    /// Nothing: the bytes pass.
    Nothing,
    /// Findings in text.
    Text(Stream),
    /// Values and findings in JSON.
    Json(Box<JsonStream>),
}

/// Undoes the coding of a body and hides what is to be hidden.
#[derive(Debug)]
pub struct Body {
    decoder: Decoder,
    search: Search,
    /// Decoded and not yet searched.
    decoded: Vec<u8>,
}

impl Search {
    /// For a response of this content type (without parameters, lower case). `json`: values by path; `detectors`: findings.
    ///
    /// # Errors
    /// When values are hidden by path and it is no JSON.
    pub fn of(
        content_type: &str,
        json: &Arc<[(JsonPath, Transform)]>,
        detectors: Option<&Arc<Detectors>>,
    ) -> Result<Self, Withheld> {
        match (is_json(content_type), json.is_empty(), detectors) {
            (_, true, None) => Ok(Self::Nothing),
            (true, _, detectors) => {
                Ok(Self::Json(Box::new(JsonStream::new(Arc::clone(json), detectors.cloned()))))
            }
            (false, true, Some(detectors)) => Ok(Self::Text(Stream::new(Arc::clone(detectors)))),
            (false, false, _) => {
                let shown: String = content_type.chars().take(60).collect();
                Err(Withheld::NoJson(if shown.is_empty() { "of no type".to_owned() } else { shown }))
            }
        }
    }

    /// Takes the next piece and appends what can be shown to `out`.
    ///
    /// # Errors
    /// When nothing more may be shown.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        match self {
            Self::Nothing => out.extend_from_slice(piece),
            Self::Text(stream) => stream.push(piece, out),
            Self::Json(stream) => stream.push(piece, out)?,
        }
        Ok(())
    }

    /// The body is over.
    ///
    /// # Errors
    /// When it ended in the middle.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        match self {
            Self::Nothing => {}
            Self::Text(stream) => stream.release(out),
            Self::Json(stream) => stream.finish(out)?,
        }
        Ok(())
    }

    /// Shows what is held back although more may come: nothing has come for a while.
    pub fn pause(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing | Self::Json(_) => {}
            Self::Text(stream) => stream.release(out),
        }
    }

    /// How much was hidden.
    pub fn hidden(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Text(stream) => stream.hidden(),
            Self::Json(stream) => stream.hidden(),
        }
    }
}

impl Body {
    /// `coding`: the value of Content-Encoding.
    ///
    /// # Errors
    /// When the coding is not known.
    pub fn new(coding: Option<&str>, search: Search) -> Result<Self, Withheld> {
        Ok(Self { decoder: Decoder::new(coding)?, search, decoded: Vec::new() })
    }

    /// Takes from the front of `input` and appends what can be shown to `out`, a bounded piece. False: the input is used up.
    ///
    /// # Errors
    /// When nothing more may be shown.
    pub fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Withheld> {
        self.decoded.clear();
        self.decoder.step(input, &mut self.decoded)?;
        if self.decoded.is_empty() && input.is_empty() {
            return Ok(false);
        }
        self.search.push(&self.decoded, out)?;
        Ok(true)
    }

    /// The body is over.
    ///
    /// # Errors
    /// When it ended in the middle.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        self.decoded.clear();
        self.decoder.finish(&mut self.decoded)?;
        self.search.push(&self.decoded, out)?;
        self.search.finish(out)
    }

    /// Shows what is held back although more may come.
    pub fn pause(&mut self, out: &mut Vec<u8>) {
        self.search.pause(out);
    }

    /// How much was hidden.
    pub fn hidden(&self) -> u64 {
        self.search.hidden()
    }
}

/// `application/json`, `application/problem+json`, `application/x-ndjson` and their like.
pub fn is_json(content_type: &str) -> bool {
    let (_, subtype) = content_type.split_once('/').unwrap_or_default();
    matches!(subtype, "json" | "x-ndjson" | "ndjson" | "jsonl" | "x-jsonlines") || subtype.ends_with("+json")
}

/// The content type without its parameters, lower case.
pub fn content_type(value: Option<&str>) -> String {
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_masked_behind_its_coding_and_all_else_is_withheld() {
        let paths: Arc<[_]> = [(JsonPath::parse("$..token").unwrap(), Transform::Redact)].into();
        let detectors = Arc::new(Detectors::compile(&["email"]).unwrap());
        let search = Search::of("application/vnd.x+json", &paths, Some(&detectors)).unwrap();
        let body = zstd::encode_all(&br#"{"a":[{"token":"s"}],"m":"jo@mail.example"}"#[..], 1).unwrap();
        let mut filter = Body::new(Some("zstd"), search).unwrap();
        let mut out = Vec::new();
        for piece in body.chunks(5) {
            let mut input = piece;
            while filter.step(&mut input, &mut out).unwrap() {}
        }
        filter.finish(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":[{"token":"[redacted]"}],"m":"[redacted:email]"}"#
        );
        assert_eq!(filter.hidden(), 2);
        for other in ["text/html", "", "application/octet-stream", "text/json+x"] {
            Search::of(other, &paths, None).unwrap_err();
        }
        let none: Arc<[_]> = Arc::new([]);
        assert!(matches!(Search::of("text/html", &none, Some(&detectors)), Ok(Search::Text(_))));
        assert!(matches!(Search::of("application/json", &none, None), Ok(Search::Nothing)));
    }

    #[test]
    fn types_are_compared_without_parameters() {
        assert_eq!(content_type(Some("Application/JSON; charset=utf-8")), "application/json");
        assert!(is_json("application/json") && is_json("text/json") && !is_json("text/plain"));
    }
}
