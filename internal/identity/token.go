package identity

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Token is a join token: single use, short-lived. It names the CA's hash, so
// the joiner knows whom it talks to before it shows the secret.
type Token struct {
	ID     string // public, names the token in the log
	Secret string
	CA     string // Hash of the CA certificates
}

const tokenPrefix = "gsjoin1"

// TokenVariable is the environment variable that ReadToken looks at.
const TokenVariable = "GROUNDSWELL_JOIN_TOKEN"

// NewToken makes a token for a cluster with this CA.
func NewToken(caPEM []byte) Token {
	return Token{ID: random(5), Secret: random(20), CA: Hash(caPEM)}
}

// String returns the token as people copy it. It is a secret.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, t.ID, t.Secret, t.CA}, ".")
}

// ParseToken reads a token. Its errors never repeat the token.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("this is no join token: it starts with %s and has four parts; make one with `dctl "+
			"token create`", tokenPrefix)
	}
	t := Token{ID: parts[1], Secret: parts[2], CA: parts[3]}
	if b, err := hex.DecodeString(t.CA); err != nil || len(b) != 16 || t.ID == "" || len(t.Secret) < 16 {
		return Token{}, fmt.Errorf("the join token is cut or mistyped; copy it again whole")
	}
	return t, nil
}

// ReadToken reads a token from a file, "-" for standard input, or from the
// environment variable GROUNDSWELL_JOIN_TOKEN when file is empty. A token is
// never taken from a command line, where every user of the host could read it.
func ReadToken(file string) (Token, error) {
	switch file {
	case "":
		s := os.Getenv(TokenVariable)
		if s == "" {
			return Token{}, fmt.Errorf(
				"no join token: give --join-token-file FILE (- for standard input), or set " + TokenVariable)
		}
		return ParseToken(s)
	case "-":
		file = "/dev/stdin"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return Token{}, fmt.Errorf("read join token: %w", err)
	}
	t, err := ParseToken(string(b))
	if err != nil {
		return Token{}, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// secrets finds join tokens in a text.
var secrets = regexp.MustCompile(regexp.QuoteMeta(tokenPrefix) + `\.([0-9A-Za-z_-]+)\.[0-9A-Za-z_.-]+`)

// Redact takes the secrets of join tokens out of a text that is to be kept: people paste
// a token where its id belongs.
func Redact(s string) string {
	if !strings.Contains(s, tokenPrefix+".") {
		return s
	}
	return secrets.ReplaceAllString(s, tokenPrefix+".$1.(secret)")
}
