package webhook_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"virt-attest/verifier/webhook"
)

// A receiver checks the signature before it looks at anything, and remembers IDs, because a message may
// come again.
func Example() {
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") // from the configuration
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, body, err := webhook.Receive(secret, r, time.Now())
		if err != nil {
			http.Error(w, "not signed", http.StatusUnauthorized)
			return
		}
		fmt.Printf("%s says %s\n", id, body)
		w.WriteHeader(http.StatusNoContent)
	})

	body := `{"type":"verdict"}`
	r := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(body))
	at := time.Now()
	r.Header.Set(webhook.HeaderID, "msg_1")
	r.Header.Set(webhook.HeaderTimestamp, fmt.Sprint(at.Unix()))
	r.Header.Set(webhook.HeaderSignature, webhook.Sign([]webhook.Secret{secret}, "msg_1", at, []byte(body)))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output:
	// msg_1 says {"type":"verdict"}
	// 204
}
