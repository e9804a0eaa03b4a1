from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clock import processor_time

from dbnd._base.masking import MARGIN, MASK, mask_text, mask_value
from dbnd._model.error_info import ErrorInfo
from dbnd._model.values import MAX_TEXT, param_text

NO_SECRETS = [
    "abfss://bronze@lake.dfs.core.windows.net/sales",
    "wasbs://c@a.blob.core.windows.net/x",
    "docker://trainer@sha256:0a1b2c",
    "docker://python:3.11@sha256:0a1b2c4d",
    "docker://registry:5000/img@sha256:aa11",
    "git+ssh://git@github.com/o/r.git@v1.0#egg=x",
    "ssh://git@host:22/x",
    "git@github.com:org/repo.git",
    "https://user@host/x",
    "https://org@dev.azure.com/org/p/_git/r",
    "mailto:me@example.com",
    "write to me@example.com: thanks",
    "s3://arn:aws:s3:us-east-1:123:accesspoint/x",
    "arn:aws:iam::123456789012:role/x",
    "http://localhost:5000/#/experiments/1?mail=a@b.c",
    "http://localhost:5000/a@b",
    "tokens=512",
    "max_tokens: 3",
    "max_token=3",
    "tokenizer=bert",
    "TOKENIZERS_PARALLELISM=false",
    "pad_token=[PAD]",
    "eos_token_id: 2",
    "password policy: see the wiki",
    "password_file=/run/secrets/x",
    "unexpected token: end",
    "Unexpected token: 'foo'",
    "secretary: John",
    "abfss://c@a.dfs.core.windows.net//part:1@2/x",
    "postgresql://host:5432/db?user=a@b",
    "file:///c:/a@b",
    "key=value",
    "keys: a, b",
    "passwordless=true",
    "signature=sha",
    "monkey: banana",
    "def f(password: str, token: int = None)",
    "sk-learn-random-forest-tuning-baseline",
    "s3://bucket/a//b:c@d/e",
    "abfss%3A%2F%2Fbronze%40lake",
    "passwords are bad",
    "https://x/?next=//a@b",
    "the bearer of bad news",
    "primary_key=id",
    "sort key: name",
    "token_type: bearer",
    "mlflow-artifacts:/1/2",
    "dbfs:/a@b",
    "x = a // b:c @ d",
    "password=None",
    "low_pass=0.5, n_pass: 3",
    "the tests pass: all of them",
    "cookies are baked",
    "invalid token: x",
    "postgresql://user@host:5432/db",
    "me@corp.example",
    "spark.executor.instances: 3",
]
SECRETS = [
    ("postgresql://user:pass@host/db", "postgresql://***@host/db"),
    ("postgresql://user:p@ss@host/db", "postgresql://***@host/db"),
    ("postgresql://user:p/ss@host/db", "postgresql://***@host/db"),
    ("postgresql://user:p%40ss@host/db", "postgresql://***@host/db"),
    ("postgresql://user:p%2Fss@host/db", "postgresql://***@host/db"),
    ("redis://:pw@host", "redis://***@host"),
    ("postgresql%3A%2F%2Fu%3Ap%40h%2Fd", "postgresql%3A%2F%2F***%40h%2Fd"),
    (
        "dbnd://h:1?duplicate_tracking_to=postgresql%253A%252F%252Fu%253Ap%252540x%2540h%252Fd&x=1",
        "dbnd://h:1?duplicate_tracking_to=postgresql%253A%252F%252F***%2540h%252Fd&x=1",
    ),
    ("postgresql%3A//u%3Ap%40h/d", "postgresql%3A//***%40h/d"),
    ("https://ghp_abcdefghijklmnopqrst0123456789abcdef@github.com", "https://***@github.com"),
    ("https://0123456789abcdef0123456789abcdef01234567@github.com", "https://***@github.com"),
    ("token=abc", "token=***"),
    ('{"token": "abc def"}', '{"token": "***"}'),
    ('{\\"token\\": \\"abc def\\", 1}', '{\\"token\\": \\"***\\", 1}'),
    ("password: hunter2", "password: ***"),
    ("db_pass=hunter2", "db_pass=***"),
    ("Cookie: session=0123", "Cookie: ***"),
    ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ("'Authorization': 'Bearer abc.def'", "'Authorization': 'Bearer ***'"),
    ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic ***"),
    ("Bearer 0123456789abcdefgh", "Bearer ***"),
    ("--password hunter2 --x", "--password *** --x"),
    ("--max-tokens 5 --hub-token abc", "--max-tokens 5 --hub-token ***"),
    ("aws_secret_access_key=abc/def+", "aws_secret_access_key=***"),
    ("AccountKey=abc==;X", "AccountKey=***;X"),
    ("https://a.blob/x?sv=1&sig=abc%3D&se=2", "https://a.blob/x?sv=1&sig=***&se=2"),
    (
        "https://s3/x?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=ff",
        "https://s3/x?X-Amz-Credential=***&X-Amz-Signature=***",
    ),
    ("key AKIAIOSFODNN7EXAMPLE.", "key ***."),
    ("sk-proj-abcdEFGH1234abcdEFGH1234", "***"),
    ("dapi0123456789abcdef0123456789abcdef", "***"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def", "***"),
    ("hf_abcdefghijklmnopqrstuvwxyz", "***"),
    ('apiKey: "x y"', 'apiKey: "***"'),
    ("clientSecret=x", "clientSecret=***"),
    ("API key: abc", "API key: ***"),
    ("UID=sa;PWD=geheim;", "UID=sa;PWD=***;"),
    ("SecretStr password=SecretStr('abc')", "SecretStr password=SecretStr('***')"),
    ("postgresql://h/db?user=u&password=p&x=1", "postgresql://h/db?user=u&password=***&x=1"),
    ("x?u=postgresql%3A%2F%2Fh%3Fpassword%3Dabc%26x", "x?u=postgresql%3A%2F%2Fh%3Fpassword%3D***%26x"),
    ("https://x-access-token:abc@github.com/o/r", "https://***@github.com/o/r"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
    ),
    ("glpat-abcdefghij0123456789", "***"),
    ("xoxb-123456789012-abcdefghij", "***"),
    ("github_pat_11ABCDEFG0123456789_abcdef", "***"),
]
FRAGMENTS = [
    *("//", "://", "https://", "postgresql://", "docker://", "%2F%2F", "%252F%252F", "%3A%2F%2F", "@", "%40", "%2540"),
    *(":", "%3A", "/", "?", "&", "%26", "=", "%3D", " ", "\n", '"', "'", "\\", '\\"', "***", "a", "1", "sha256:0"),
    *("password", "token", "key", "api", "API key", "-", "_", "--", "sig", "Authorization", "Bearer ", "None", "5"),
    *("ghp_0123456789abcdefghijklmno", "eyJhbGciOiJI.eyJzdWIiOiIx.x", "AKIAIOSFODNN7EXAMPLE", ")", "(", ".", ";"),
]


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_is_no_secret_stays_as_it_is(text):
    assert mask_text(text) == text
    assert mask_text(f"see {text} there") == f"see {text} there"


@pytest.mark.parametrize(("text", "masked"), SECRETS)
def test_passwords_and_tokens_are_masked(text, masked):
    assert mask_text(text) == masked
    assert mask_text(f"failed: {text} there") == f"failed: {masked} there"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host:1/x",
        "postgresql+psycopg://user:hunter2@host/db",
        "dbnd://h:1?duplicate_tracking_to=http%3A%2F%2Fuser%3Ahunter2%40host%2F",
        "dbnd://h:1?duplicate_tracking_to=http%253A%252F%252Fuser%253Ahunter2%2540host%252F",
    ],
)
def test_credentials_in_urls_are_masked_however_often_they_are_encoded(url):
    assert "hunter2" not in mask_text(url)
    assert "user" not in mask_text(url)
    assert "host" in mask_text(url)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_masking_once_more_changes_nothing(text):
    once = mask_text(text)
    assert mask_text(once) == once


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_passwd",
        "db_pass",
        "userPw",
        "api_key",
        "AWS_ACCESS_KEY_ID",
        "github_token",
        "token",
        "apiKey",
        "bearer",
    ],
)
def test_values_of_secret_names_are_masked(name):
    assert mask_value(name, "hunter2") == param_text(name, "hunter2") == MASK


@pytest.mark.parametrize(
    "name",
    "tokenizer max_tokens n keys pad_token eos_token_id token_type token_file monkey low_pass pass n_pass pw".split(),
)
def test_values_of_other_names_are_not(name):
    assert mask_value(name, "bert") == param_text(name, "bert") == "bert"


@pytest.mark.parametrize("value", ["None", "", "True", "50256"])
def test_a_value_that_tells_nothing_is_shown(value):
    assert mask_value("token", value) == value


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "//",
            "%2F",
            "%2F%2F",
            "://",
            "//a:",
            "//a@",
            "@",
            "a:",
            "postgresql://a:",
            "password",
            "password=",
            "token",
        ),
        *(
            "token ",
            "--token ",
            "key",
            'password="',
            'password=\\"',
            "eyJ",
            "eyJ.",
            "sk-",
            "sk-a-",
            "bearer a",
            "&sig=",
        ),
        *("-----BEGIN PRIVATE KEY-----", "password:\n", "%25", "_", "ghp_"),
    ],
)
def test_masking_takes_time_in_proportion_to_the_text(piece):
    texts = ((piece * size)[:size] for size in (10_000, 80_000))
    short, long = (processor_time(lambda text=text: mask_text(text)) for text in texts)
    assert long < 24 * short + 0.05  # eight times as long; 64 times the time, were it quadratic


def test_no_more_is_masked_than_is_kept():
    secret = "postgresql://me:geheim@h/d"
    text = f"{'x' * MAX_TEXT}{secret}"
    shown = mask_text(text, MAX_TEXT - 5)
    assert "geheim" not in shown
    assert len(mask_text("a" * 10**7, MAX_TEXT)) == MAX_TEXT + MARGIN
    assert "geheim" not in param_text("uri", f"{'x' * (MAX_TEXT - 40)} postgresql://me:geheim{'y' * 100}@h/d")


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError


def test_errors_have_texts_of_bounded_size_whatever_they_are():
    info = ErrorInfo.of(ValueError("password=geheim " + "a" * 10**6))
    assert info.message.startswith("password=*** aaa")
    assert max(len(info.message), len(info.traceback)) < 110_000
    assert ErrorInfo.of(UnprintableError()).message == "<UnprintableError whose text form raises RuntimeError>"
