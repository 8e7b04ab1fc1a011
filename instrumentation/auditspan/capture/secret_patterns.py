# SPDX-License-Identifier: Apache-2.0
"""What secrets look like, as a table. To add a kind, add a row, and the kind to tests/capture/planted.py.

Each row: what such a text has in it (in lower case; looked for first), and the pattern. The group ``s`` is the secret, or
``q`` and ``a`` where it stands in double or single quotes. Repetitions have bounds: the work must stay linear.
"""

from __future__ import annotations

_LABEL = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|account[-_ ]?key"
    r"|client[-_ ]?secret|credentials?|auth[-_ ]?key|signing[-_ ]?key|encryption[-_ ]?key|shared[-_ ]?key|storage[-_ ]?key"
    r"|sharedaccesskey|connection[-_ ]?string|dsn)"
)
_QUERY = (
    r"(?:access_token|refresh_token|id_token|token|api[-_]?key|key|sig|signature|secret|client_secret|password|passwd|pwd"
    r"|code|auth|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|awsaccesskeyid|sas|jwt)"
)
FORMS: tuple[tuple[tuple[str, ...], str], ...] = (
    # passwords in URLs, also percent-encoded: scheme://user:password@host
    (("://",), r"(?<=://)(?P<s>[^\s/?#@\"'<>]{0,256}:[^\s/?#\"'<>@]{1,512}(?:@[^\s/?#\"'<>@]{1,512}){0,3})(?=@)"),
    (("%3a%2f%2f",), r"%3a%2f%2f(?P<s>[^\s/?#@\"'<>%]{0,64}(?::|%3a)[^\s/?#\"'<>@:]{1,256}?)(?=@|%40)"),
    # secrets in query strings
    (("?", "&", "%3f", "%26"), rf"(?:[?&]|%3f|%26)(?:[\w.-]{1, 40}[-_.])?{_QUERY}(?:=|%3d)(?P<s>[^\s&#\"'<>]+)"),
    # header lines, also in a repr of headers
    (
        ("authorization",),
        r"(?:proxy-)?authorization[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?(?:(?:bearer|basic|digest|token|negotiate|aws4-hmac-sha256|apikey)\s+)?"
        r"(?P<s>[^\"'\r\n]+)",
    ),
    (("cookie",), r"(?:set-)?cookie[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?(?P<s>[^\"'\r\n]+)"),
    (
        ("x-", "api-key", "apikey"),
        r"x-[\w-]{0,40}?(?:token|key|secret|auth)[\"']?\s*[:=,]\s*(?:b(?=[\"']))?[\"']?(?P<s>[^\s\"',;]+)",
    ),
    (("bearer ",), r"\bbearer\s+(?P<s>[\w.~+/=-]{16,})"),
    (("basic ",), r"\bbasic\s+(?P<s>[A-Za-z0-9+/]{12,}={0,2})"),
    # whole keys
    (
        ("-----begin",),
        r"(?P<s>-----BEGIN[ A-Z0-9]*PRIVATE KEY[^-]*-----(?:.*?-----END[ A-Z0-9]*PRIVATE KEY[^-]*-----|.*))",
    ),
    (("eyj",), r"\b(?P<s>eyJ[\w-]{8,}(?:\.[\w-]+){1,4})"),
    # tokens with a prefix of their own
    (("akia", "asia", "abia", "acca", "a3t"), r"\b(?P<s>(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z2-7]{12,})"),
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"\b(?P<s>gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    ),
    (
        ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-", "gloas-"),
        r"\b(?P<s>gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas)-[\w.-]{16,})",
    ),
    (("xox", "xapp"), r"\b(?P<s>(?:xox[abeoprs]|xapp)-[\w-]{10,})"),
    (
        ("hooks.slack.com", "discord", "webhook.office.com"),
        r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/webhookb2/)"
        r"(?P<s>[\w@/.-]+)",
    ),
    (("_live_", "_test_"), r"\b(?P<s>[spr]k_(?:live|test)_[A-Za-z0-9]{10,})"),
    (("whsec_",), r"\b(?P<s>whsec_[A-Za-z0-9+/=]{10,})"),
    (("aiza",), r"\b(?P<s>AIza[\w-]{30,})"),
    (("ya29.",), r"\b(?P<s>ya29\.[\w-]{20,})"),
    (("gocspx",), r"\b(?P<s>GOCSPX-[\w-]{20,})"),
    (("sk-",), r"\b(?P<s>sk-[\w-]{20,})"),
    (("hf_",), r"\b(?P<s>hf_[A-Za-z0-9]{20,})"),
    (("npm_",), r"\b(?P<s>npm_[A-Za-z0-9]{20,})"),
    (("pypi-",), r"\b(?P<s>pypi-[\w-]{40,})"),
    (("sg.",), r"\b(?P<s>SG\.[\w-]{16,}\.[\w-]{16,})"),
    (("sk",), r"\b(?P<s>SK[0-9a-f]{32})\b"),
    (("key-",), r"\b(?P<s>key-[0-9a-f]{32})\b"),
    (("bot",), r"\bbot(?P<s>\d{6,12}:[\w-]{30,})"),
    ((":aa",), r"\b(?P<s>\d{8,12}:AA[\w-]{30,})"),
    (("shp",), r"\b(?P<s>shp(?:at|ca|pa|ss)_[0-9a-fA-F]{20,})"),
    (("dop_v1_", "doo_v1_", "dor_v1_", "dot_v1_"), r"\b(?P<s>do[oprt]_v1_[0-9a-f]{40,})"),
    (("dapi",), r"\b(?P<s>dapi[0-9a-f]{30,}(?:-\d)?)"),
    (("hvs.", "hvb.", "hvr."), r"\b(?P<s>hv[sbr]\.[\w-]{20,})"),
    (("pat",), r"\b(?P<s>pat[A-Za-z0-9]{14}\.[0-9a-f]{40,})"),
    (("secret_", "ntn_"), r"\b(?P<s>(?:secret_|ntn_)[A-Za-z0-9]{30,})"),
    (("lin_",), r"\b(?P<s>lin_(?:api|oauth)_[A-Za-z0-9]{20,})"),
    (("atatt", "atctt", "atbb"), r"\b(?P<s>(?:ATATT3|ATCTT3|ATBB)[\w=.-]{20,})"),
    (("age-secret-key",), r"\b(?P<s>AGE-SECRET-KEY-1[A-Z0-9]{20,})"),
    (("rubygems_", "sntry"), r"\b(?P<s>(?:rubygems_|sntry[su]_)[\w+/=.-]{20,})"),
    (("nrak-",), r"\b(?P<s>NRAK-[A-Z0-9]{20,})"),
    (("glsa_", "glc_"), r"\b(?P<s>(?:glsa|glc)_[\w+/=]{20,})"),
    # labelled: password=…, "api_key": "…", --token …, Pwd=…; AccountKey=…
    (
        ("pass", "pwd", "secret", "token", "key", "credential", "dsn", "connection"),
        rf"(?:\b|_|(?<=[a-z])(?=[A-Z])){_LABEL}(?:_?(?:id|value|key))?[\"']?\s*(?:[:=]|=>|:=)\s*(?:[rbuf]{{1,2}}(?=[\"']))?"
        r"(?:\"(?P<q>(?:[^\"\\]|\\.)+)\"|'(?P<a>(?:[^'\\]|\\.)+)'|(?P<s>[^\s\"',;&){}\]]{3,}))",
    ),
    (("--",), rf"--[\w-]{{0,40}}{_LABEL}\s+(?:\"(?P<q>[^\"]+)\"|'(?P<a>[^']+)'|(?P<s>[^\s-][^\s]*))"),
)
