//! S3: one bucket, requests signed with version 4.

use super::request::{Answer, Request, decode, encode, hmac, sha256};
use super::{ACCESS_KEY, Object, SECRET_KEY, SESSION_TOKEN, State};

pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    if let Err(code) = check(request) {
        return Answer::error(403, code);
    }
    let path = request.path.as_str();
    if !path.starts_with("/cache/") {
        return Answer::error(404, "NoSuchBucket");
    }
    let upload = request.query("uploadId").to_owned();
    match request.method.as_str() {
        "GET" | "HEAD" => match state.objects.get(path) {
            Some(object) => {
                let modified = httpdate::fmt_http_date(object.modified);
                request.part_of(&object.bytes).header("Last-Modified", &modified)
            }
            None => Answer::error(404, "NoSuchKey"),
        },
        "PUT" if !request.header("x-amz-copy-source").is_empty() => copy(state, request),
        "PUT" if upload.is_empty() => {
            state.objects.insert(path.to_owned(), Object::new(request.body.clone()));
            Answer::new(200)
        }
        "PUT" => {
            let number = format!("{:0>5}", request.query("partNumber"));
            let etag = format!("\"{}\"", sha256(&request.body));
            state.parts.insert((upload, number), request.body.clone());
            Answer::new(200).header("ETag", &etag)
        }
        "POST" if request.query.contains_key("uploads") => Answer::new(200).body(format!(
            "<?xml version=\"1.0\"?><InitiateMultipartUploadResult \
                 xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><UploadId>{}&amp;+/</UploadId>\
                 </InitiateMultipartUploadResult>",
            state.asked.len()
        )),
        "POST" => complete(state, request, &upload),
        "DELETE" => {
            state.parts.retain(|(known, _), _| *known != upload);
            Answer::new(204)
        }
        _ => Answer::error(405, "MethodNotAllowed"),
    }
}

/// A copy of an object onto itself, which has to change something.
fn copy(state: &mut State, request: &Request) -> Answer {
    if format!("/{}", decode(request.header("x-amz-copy-source"))) != decode(&request.path)
        || request.header("x-amz-metadata-directive") != "REPLACE"
    {
        return Answer::error(400, "InvalidRequest");
    }
    let Some(object) = state.objects.get_mut(&request.path) else {
        return Answer::error(404, "NoSuchKey");
    };
    object.modified = std::time::SystemTime::now();
    Answer::new(200).body("<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>")
}

fn complete(state: &mut State, request: &Request, upload: &str) -> Answer {
    let parts: Vec<_> = state.parts.iter().filter(|((known, _), _)| known == upload).collect();
    // All but the last have a least size.
    if parts.iter().rev().skip(1).any(|(_, bytes)| bytes.len() < 5 << 20) {
        return Answer::error(400, "EntityTooSmall");
    }
    // Clients differ in the order of what they say of a part.
    let body =
        String::from_utf8_lossy(&request.body).replace("&quot;", "\"").replace("&#34;", "\"");
    let listed: Vec<&str> = body.split("<Part>").skip(1).collect();
    let is_listed = |(((_, number), bytes), listed): (&(&(String, String), &Vec<u8>), &&str)| {
        let number = number.trim_start_matches('0');
        listed.contains(&format!("<PartNumber>{number}</PartNumber>"))
            && listed.contains(&format!("<ETag>\"{}\"</ETag>", sha256(bytes)))
    };
    if listed.len() != parts.len() || !parts.iter().zip(&listed).all(is_listed) {
        return Answer::error(400, "InvalidPart");
    }
    let bytes: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    state.objects.insert(request.path.clone(), Object::new(bytes));
    Answer::new(200).body("<CompleteMultipartUploadResult/>")
}

/// Whether a request is signed (S3's reference, "Authenticating Requests: Using the Authorization
/// Header"); if not, the code of the refusal.
fn check(request: &Request) -> Result<(), &'static str> {
    let authorization = request.header("authorization");
    let field = |name: &str| {
        let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").unwrap_or_default();
        let mut fields = fields.split(',').map(str::trim);
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let (key, scope) = field("Credential").split_once('/').ok_or("AccessDenied")?;
    if key != ACCESS_KEY {
        return Err("InvalidAccessKeyId");
    }
    if request.header("x-amz-security-token") != SESSION_TOKEN {
        return Err("InvalidToken");
    }
    let [date, "eu-test-1", "s3", "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return Err("AuthorizationHeaderMalformed");
    };
    let signed: Vec<&str> = field("SignedHeaders").split(';').collect();
    let must = request.headers.keys().filter(|name| *name == "host" || name.starts_with("x-amz-"));
    if !must.into_iter().all(|name| signed.contains(&name.as_str())) {
        return Err("AccessDenied");
    }
    let payload = request.header("x-amz-content-sha256");
    if payload != "UNSIGNED-PAYLOAD" && payload != sha256(&request.body) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let pairs = request.query.iter();
    let query = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let headers = signed.iter().map(|name| format!("{name}:{}\n", request.header(name)));
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{}\n{payload}",
        request.method,
        request.path,
        query.collect::<Vec<_>>().join("&"),
        headers.collect::<String>(),
        field("SignedHeaders"),
    );
    let time = request.header("x-amz-date");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in [date, "eu-test-1", "s3", "aws4_request"] {
        key = hmac(&key, part);
    }
    let right = time.starts_with(date) && hex::encode(hmac(&key, &text)) == field("Signature");
    if right { Ok(()) } else { Err("SignatureDoesNotMatch") }
}
