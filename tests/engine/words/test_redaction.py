"""Secrets are found by their form, and what only looks like one stays. Every value is invented."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import string
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.words.redaction import redact
from engine.words.secret_kinds import KINDS

ALPHABETS = {
    "a": string.ascii_letters + string.digits,
    "h": "0123456789abcdef",
    "u": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "d": string.digits,
}
UUID = "{h8}-{h4}-{h4}-{h4}-{h12}"
TOKENS = {
    "age-key": "AGE-SECRET-KEY-1{u58}",
    "aws-access-key": "AKIA{u16}",
    "aws-bedrock-key": "ABSK{a120}",
    "azure-client-secret": "{a3}8Q~{a34}",
    "google-api-key": "AIza{a35}",
    "google-oauth": "GOCSPX-{a28}",
    "alibaba-key": "LTAI{a20}",
    "tencent-key": "AKID{a32}",
    "digitalocean": "dop_v1_{h64}",
    "heroku": "HRKU-AA{a58}",
    "fly": "fo1_{a43}",
    "netlify": "nfp_{a40}",
    "cloudflare": "v1.0-{h24}-{h146}",
    "supabase": "sbp_{h40}",
    "planetscale": "pscale_tkn_{a43}",
    "neon": "napi_{l64}",
    "yandex-cloud": "AQVN{a36}",
    "tailscale": "tskey-auth-{a12}-{a32}",
    "github": "ghp_{a36}",
    "gitlab": "glpat-{a20}",
    "bitbucket": "ATBB{a32}",
    "atlassian": "ATATT3{a180}",
    "npm": "npm_{a36}",
    "pypi": "pypi-AgEIcHlwaS5vcmc{a150}",
    "rubygems": "rubygems_{h48}",
    "crates": "cio{a32}",
    "nuget": "oy2{l43}",
    "clojars": "CLOJARS_{l60}",
    "artifactory": "AKCp{a69}",
    "docker": "dckr_pat_{a27}",
    "circleci": "CCIPAT_{a22}_{h40}",
    "buildkite": "bkua_{l40}",
    "sonar": "squ_{h40}",
    "pulumi": "pul-{h40}",
    "terraform": "{a14}.atlasv1.{a67}",
    "vault": "hvs.{a90}",
    "doppler": "dp.pt.{a43}",
    "infisical": "st.{h24}.{h32}.{h32}",
    "1password": "ops_eyJ{a300}",
    "postman": "PMAK-{h24}-{h34}",
    "anthropic": "sk-ant-api03-{a93}AA",
    "openai": "sk-proj-{a74}",
    "openrouter": "sk-or-v1-{h64}",
    "model-key": "sk-{h32}",
    "huggingface": "hf_{a34}",
    "replicate": "r8_{a37}",
    "groq": "gsk_{a52}",
    "xai": "xai-{a80}",
    "perplexity": "pplx-{a48}",
    "tavily": "tvly-dev-{a32}",
    "pinecone": "pcsk_{a6}_{a63}",
    "langsmith": "lsv2_pt_{h32}_{h10}",
    "elevenlabs": "sk_{h48}",
    "stripe": "sk_live_{a24}",
    "square": "sq0csp-{a43}",
    "paypal-braintree": "access_token$production${l16}${h32}",
    "plaid": f"access-production-{UUID}",
    "razorpay": "rzp_live_{a14}",
    "flutterwave": "FLWSECK_TEST-{h32}-X",
    "shopify": "shpat_{h32}",
    "easypost": "EZAK{a54}",
    "slack": "xoxb-{d12}-{d13}-{a24}",
    "discord": "M{a23}.{a6}.{a27}",
    "telegram": "{d10}:AA{a33}",
    "twilio": "SK{h32}",
    "sendgrid": "SG.{a22}.{a43}",
    "mailgun": "key-{h32}",
    "mailchimp": "{h32}-us12",
    "brevo": "xkeysib-{h64}-{a16}",
    "resend": "re_{a8}_{a24}",
    "dropbox": "sl.B{a140}",
    "notion": "ntn_{a46}",
    "linear": "lin_api_{a40}",
    "figma": "figd_{a40}",
    "airtable": "pat{a14}.{h64}",
    "databricks": "dapi{h32}",
    "new-relic": "NRAK-{u27}",
    "grafana": "glsa_{a32}_{h8}",
    "sentry": "sntryu_{h64}",
    "dynatrace": "dt0c01.{u24}.{u64}",
    "launchdarkly": f"sdk-{UUID}",
    "contentful": "CFPAT-{a43}",
    "mapbox": "sk.eyJ{a60}.{a22}",
    "sourcegraph": "sgp_{h40}",
    "facebook": "EAAG{a120}",
    "twitter": "AAAAAAAAAAAAAAAAAAAAA{a80}",
    "faiss-memory": "fm_{a12}_{a43}",
    "jwt": "eyJ{a30}.eyJ{a80}.{a43}",
}
WITHIN = {
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\n{a64}\n{a64}\n-----END RSA PRIVATE KEY-----",
    "putty-key": "Private-Lines: 2\n{a64}\n{a60}",
    "azure-storage-key": "AccountName=store;AccountKey={a86}==;EndpointSuffix=core",
    "azure-sas": "https://store.example/box?sv=2024-08-04&sig={a43}%3D",
    "slack-webhook": "https://hooks.slack.com/services/T{u8}/B{u10}/{a24}",
    "discord-webhook": "https://discord.com/api/webhooks/{d18}/{a68}",
    "teams-webhook": "https://corp.webhook.office.com/webhookb2/{h8}@{h32}/IncomingWebhook/{h32}/{h8}",
    "authorization": "curl -H 'Authorization: Bearer {a40}' localhost",
    "url-password": "postgres://app:{a12}@db.internal:5432/app",
    "password": "DB_PASSWORD={a14}!",
    "secret": 'client_secret: "{a32}"',
}


def invented(template: str, seed: int) -> str:
    draw = random.Random(seed)

    def drawn(match: re.Match[str]) -> str:
        return "".join(draw.choices(ALPHABETS[match[1]], k=int(match[2])))

    return re.sub(r"\{([a-z])(\d+)\}", drawn, template)


@pytest.mark.parametrize("kind", sorted(TOKENS))
def test_a_token_goes_and_its_surroundings_stay(kind: str) -> None:
    for seed in range(20):
        token = invented(TOKENS[kind], seed)
        for before, after in (
            ("we use ", " here"),
            ("(", ")"),
            ('"', '",'),
            ("x=", "\n"),
            ("", ""),
        ):
            redacted = redact(f"{before}{token}{after}")
            assert redacted.text == f"{before}[redacted:{kind}]{after}"
            assert redacted.counts == {kind: 1}


@pytest.mark.parametrize("kind", sorted(WITHIN))
def test_a_secret_that_its_surroundings_give_away_goes(kind: str) -> None:
    text = invented(f"Note: {WITHIN[kind]}", 7)
    redacted = redact(text)
    assert redacted.counts == {kind: 1}
    assert redacted.text.startswith("Note: ")
    for secret in re.findall(r"\w{12,}", text):
        assert secret not in redacted.text or secret in WITHIN[kind]


def test_every_kind_is_tried() -> None:
    assert {kind.name for kind in KINDS} | {"password", "secret"} == TOKENS.keys() | WITHIN.keys()


@pytest.mark.parametrize(
    "text",
    [
        "The password is Tr0ub4dor&3.",
        "mysql --password S3cr3t99 -h db",
        '{"dbPassword": "hunter2x"}',
        "passwd=correct-h0rse-battery",
        "api_key = 'q8w7e6r5t4y3u2'",
        "export SERVICE_TOKEN=9f8e7d6c5b4a3210ffee",
        "webhook key: 7f3a9c21-4c1e",
    ],
)
def test_a_value_that_looks_drawn_goes_with_its_name(text: str) -> None:
    assert sum(redact(text).counts.values()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "password: required",
        "password = get_password(user)",
        "PASSWORD=$DB_PASSWORD",
        "password: <your-password>",
        "token: ${{ secrets.GITHUB_TOKEN }}",
        "max_tokens: 128000",
        "tokenizer=sentencepiece_v2_model",
        "author: j.doe-1985x",
        "passport: X1234567",
        "the compass: N45-E12x",
        "the secret is that nobody knows",
        "token: refresh-token-v2",
        "password_hash: 5f4dcc3b5aa765d61d8327deb882cf99",
        "secret_name: prod/db-2024-primary",
        "api_key=os.environ['API_KEY_2']",
        "tests pass: 412/415",
        "the key starts with -----BEGIN PRIVATE KEY----- and more",
        "https://host:8443/path@2x.png",
        "git@github.example:team/repo.git",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redact(text) == redact(text).__class__(text, {})


def harmless() -> list[str]:
    """Three hundred hashes, ids, paths and pictures as they stand in notes."""
    draw = random.Random(11)
    texts = []
    for n in range(50):
        blob = draw.randbytes(32)
        sha = hashlib.sha256(blob).hexdigest()
        picture = b"\x89PNG\r\n\x1a\n" + draw.randbytes(20_000)
        texts += [
            f"commit {hashlib.sha1(blob).hexdigest()} fixes it",
            f"image: app@sha256:{sha}",
            f"session {uuid.UUID(bytes=blob[:16])} ended",
            f"/var/cache/build/{sha[:16]}/node_modules/.bin/tool-{n}.js",
            f"![a](data:image/png;base64,{base64.b64encode(picture).decode()})",
            f'"integrity": "sha512-{base64.b64encode(hashlib.sha512(blob).digest()).decode()}"',
        ]
    return texts


def test_three_hundred_hashes_ids_paths_and_pictures_stay() -> None:
    texts = harmless()
    assert len(texts) == 300
    assert [text[:60] for text in texts if redact(text).counts] == []


@given(st.lists(st.sampled_from([*TOKENS.values(), *WITHIN.values(), "some words", "=", ": "])))
def test_what_was_redacted_is_not_redacted_again(parts: list[str]) -> None:
    once = redact(" ".join(invented(part, n) for n, part in enumerate(parts))).text
    assert redact(once).text == once


@pytest.mark.parametrize(
    "piece",
    ["-----BEGIN PRIVATE KEY-----\n", "password", "a.", "eyJ", "x://a:", "token= ", "sk-", "AAAA"],
)
def test_no_text_makes_it_slow(piece: str) -> None:
    def seconds(n_chars: int) -> float:
        text = (piece * n_chars)[:n_chars]
        start = time.process_time()
        redact(text)
        return time.process_time() - start

    seconds(1000)
    # Twenty times the text in at most two hundred times the time: no square in its length.
    assert seconds(50_000) < 200 * max(seconds(2_500), 1e-3)
