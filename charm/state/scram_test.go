package state

import (
	"encoding/base64"
	"strings"
	"testing"
)

// vectors are what PostgreSQL 17 stored for CREATE ROLE ... PASSWORD.
var vectors = []struct {
	password   Redacted
	iterations int
	salt       string
	stored     string
}{
	{"correct horse battery staple", 4096, "KP8xKdZszOPwUbSeIEQHfg==",
		"SCRAM-SHA-256$4096:KP8xKdZszOPwUbSeIEQHfg==$w87LdCphZknPELMuKZg95IHNFLSyRTUYsbSSyxYvA8w=:mDo5+zvC3rAP6h3l/a8sYk3TLHBB4QZHp6TkA//SWGo="},
	{"pässwörd", 4096, "dKTePlKvqURiL66StuvWcg==",
		"SCRAM-SHA-256$4096:dKTePlKvqURiL66StuvWcg==$Nn4C1PiMNZt9rc4x6wJEyGaDRd9U6PB41IXLqETktJk=:2PWbYrou7EjRCJIJHIyGb7r4mqwqfa5UWnvYWpLO0dM="},
	{"short", 1000, "YqBHC0W7OhAZcHPVXKHJ/w==",
		"SCRAM-SHA-256$1000:YqBHC0W7OhAZcHPVXKHJ/w==$aDG4AtUheJXPkAO8yp1k4nOWs97n6oGqYteR9+AQeYQ=:GjoIYK2HVkm8fRk5Ki1KblDd/tOy0Pd5kYqaz890cqM="},
}

func TestVerifierIsPostgreSQLs(t *testing.T) {
	t.Parallel()
	for _, v := range vectors {
		salt, err := base64.StdEncoding.DecodeString(v.salt)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := verifier(v.password, salt, v.iterations); err != nil || got != v.stored {
			t.Errorf("it is %s, %v; want %s", got, err, v.stored)
		}
		if !(Role{Verifier: Redacted(v.stored)}).HasPassword(v.password) {
			t.Errorf("%s is not recognised", v.stored)
		}
	}
}

func TestVerifiersOfOnePasswordDiffer(t *testing.T) {
	t.Parallel()
	first, err := Verifier("password")
	if err != nil {
		t.Fatal(err)
	}
	second, err := Verifier("password")
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Error("two verifiers have the same salt")
	}
	for _, v := range []string{first, second} {
		if !strings.HasPrefix(v, "SCRAM-SHA-256$4096:") || !(Role{Verifier: Redacted(v)}).HasPassword("password") {
			t.Errorf("%s is not of the password", v)
		}
	}
}

func TestHasPasswordRefuses(t *testing.T) {
	t.Parallel()
	good := vectors[0]
	stored := good.stored
	tests := []struct {
		name     string
		stored   string
		password Redacted
	}{
		{"another password", stored, "correct horse battery"},
		{"no password", stored, ""},
		{"another case", stored, "Correct horse battery staple"},
		{"a role without a verifier", "", good.password},
		{"a role without a verifier, and no password", "", ""},
		{"the password itself", good.password.Reveal(), good.password},
		{"an MD5 verifier", "md532e12f215ba27cb750c9e093ce4b5127", good.password},
		{"another mechanism", strings.Replace(stored, "SHA-256", "SHA-512", 1), good.password},
		{"another salt", strings.Replace(stored, "KP8x", "KP8y", 1), good.password},
		{"a salt that is no base64", strings.Replace(stored, "KP8x", "!!!!", 1), good.password},
		{"another number of iterations", strings.Replace(stored, "$4096:", "$4097:", 1), good.password},
		{"no iterations", strings.Replace(stored, "$4096:", "$0:", 1), good.password},
		{"fewer than none", strings.Replace(stored, "$4096:", "$-1:", 1), good.password},
		{"iterations that are no number", strings.Replace(stored, "$4096:", "$many:", 1), good.password},
		{"another stored key", strings.Replace(stored, "$w87L", "$w87M", 1), good.password},
		{"another server key", strings.Replace(stored, ":mDo5", ":mDo6", 1), good.password},
		{"a verifier that was cut", stored[:len(stored)-1], good.password},
		{"a verifier with more behind it", stored + ":x", good.password},
		{"separators in each other's place", strings.NewReplacer("$", ":", ":", "$").Replace(stored), good.password},
		{"separators alone", "$$:$:", good.password},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if (Role{Verifier: Redacted(test.stored)}).HasPassword(test.password) {
				t.Errorf("%q is taken for a verifier of the password", test.stored)
			}
		})
	}
}
