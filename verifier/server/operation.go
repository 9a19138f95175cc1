package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"

	"virt-attest/internal/channel"
	"virt-attest/verifier/api"
)

// operation is what a route does, with what goes in and comes out: requests are read, and the
// description of the interface is made, by the same types.
type operation struct {
	in     shape
	out    reflect.Type // of the answer in JSON or CBOR; nil: kind says it all, or there is none
	kind   string       // content type of the answer; "": there is none
	others []string     // further content types, by Accept
	handle func(*call) error
}

// none is the request that brings nothing.
type none struct{}

func operate[In any](kind string, out reflect.Type, f func(*call, *In) error) operation {
	in := shapeOf(reflect.TypeFor[In]())
	return operation{in: in, out: out, kind: kind, handle: func(c *call) error {
		var v In
		if err := in.bind(c, &v); err != nil {
			return err
		}
		return f(c, &v)
	}}
}

// ask answers in JSON with what f gives.
func ask[In, Out any](f func(*call, *In) (*Out, error)) operation {
	return operate(api.TypeJSON, reflect.TypeFor[Out](), func(c *call, in *In) error {
		v, err := f(c, in)
		if err != nil {
			return err
		}
		return c.json(v)
	})
}

// askCBOR answers in CBOR with what f gives.
func askCBOR[In, Out any](f func(*call, *In) (*Out, error)) operation {
	return operate(api.TypeCBOR, reflect.TypeFor[Out](), func(c *call, in *In) error {
		v, err := f(c, in)
		if err != nil {
			return err
		}
		return c.cbor(v)
	})
}

// do answers with nothing once f is done.
func do[In any](f func(*call, *In) error) operation {
	return operate("", nil, func(c *call, in *In) error {
		if err := f(c, in); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// file answers with bytes of a kind.
func file[In any](kind string, f func(*call, *In) ([]byte, error)) operation {
	return operate(kind, nil, func(c *call, in *In) error {
		b, err := f(c, in)
		if err != nil {
			return err
		}
		return c.send(kind, b)
	})
}

// own lets f answer by itself.
func own[In any](kind string, f func(*call, *In) error) operation { return operate(kind, nil, f) }

// or adds content types that a client may ask for, the last one with an answer of type Out.
func or[Out any](o operation, kinds ...string) operation {
	o.others, o.out = kinds, reflect.TypeFor[Out]()
	return o
}

// call is one request with its body read.
type call struct {
	w      http.ResponseWriter
	r      *http.Request
	who    principal
	body   []byte
	status int // of the answer; 0: 200
}

func (c *call) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.send(api.TypeJSON, append(b, '\n'))
}

func (c *call) cbor(v any) error {
	b, err := channel.Encode(v)
	if err != nil {
		return err
	}
	return c.send(api.TypeCBOR, b)
}

func (c *call) send(kind string, b []byte) error {
	c.w.Header().Set("Content-Type", kind)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if c.status != 0 {
		c.w.WriteHeader(c.status)
	}
	if _, err := c.w.Write(b); err != nil {
		return errors.Join(errSent, err)
	}
	return nil
}

// accepted answers later, at the job's address.
func (c *call) accepted(j *api.Job) {
	c.w.Header().Set("Location", "/api/v1/jobs/"+j.ID)
	c.status = http.StatusAccepted
}

// created tells where a new thing is.
func (c *call) created(path string) {
	c.w.Header().Set("Location", "/api/v1/"+path)
	c.status = http.StatusCreated
}

// errSent says that an answer was begun: no problem can be reported any more.
var errSent = errors.New("the answer did not reach its reader")

// listed makes a list that comes in one part.
func listed[T any](v []T, err error) (*api.List[T], error) {
	if err != nil {
		return nil, err
	}
	if v == nil {
		v = []T{}
	}
	return &api.List[T]{Items: v, Total: len(v)}, nil
}

// with says of what type the answer is.
func (o operation) with(v any) operation {
	o.out = reflect.TypeOf(v)
	return o
}
