package state

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// scramIterations is PostgreSQL's own default (scram_iterations).
const scramIterations = 4096

// Verifier makes what PostgreSQL stores of a password (pg_authid, RFC 5803).
// Sending it instead of the password keeps the password out of the server's log.
func Verifier(password Redacted) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("cannot make a salt: %w", err)
	}
	return verifier(password, salt, scramIterations)
}

// verifier derives the keys of RFC 5802, section 3. Passwords that SASLprep
// would change are rare enough that PostgreSQL's own rule for them, to take the
// bytes as they are, is used for all; ours are ASCII.
func verifier(password Redacted, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("cannot derive a key: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

// HasPassword tells whether the role's verifier was made of the password. It keeps the
// answer, which takes most of a millisecond: each pass of a dispatch asks the same.
func (r Role) HasPassword(password Redacted) bool {
	question := proof{password, r.Verifier}
	answer, known := proofs.Load(question)
	if !known {
		answer, _ = proofs.LoadOrStore(question, question.holds())
	}
	return answer.(bool)
}

// proofs has the answers to proof.holds.
var proofs sync.Map

type proof struct{ password, verifier Redacted }

func (p proof) holds() bool {
	stored := p.verifier.Reveal()
	parts := strings.FieldsFunc(stored, func(r rune) bool { return r == '$' || r == ':' })
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		return false
	}
	iterations, err := strconv.Atoi(parts[1])
	if err != nil || iterations < 1 {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	again, err := verifier(p.password, salt, iterations)
	return err == nil && hmac.Equal([]byte(again), []byte(stored))
}
