// Command scenes serves the live page of an application in trouble, to look at it:
//
//	go run ./scenes -scene overload
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/sqllease/sqllease/livepage"
	"github.com/sqllease/sqllease/livepage/browsertest/shop"
)

func main() {
	scene := flag.String("scene", "day", "day, overload, leak, slow, deadlock, down, many, or rush")
	address := flag.String("address", "127.0.0.1:8090", "where to serve it")
	flag.Parse()
	http.Handle("/debug/sqllease/", livepage.Handler(livepage.TraceURL("http://127.0.0.1:16686/trace/{trace_id}")))
	play(*scene)
	fmt.Printf("http://%s/debug/sqllease/\n", *address)
	log.Fatal(http.ListenAndServe(*address, nil)) //nolint:gosec // it is for looking at
}

// play begins a scene.
func play(scene string) {
	limit := 8
	if scene == "many" || scene == "rush" {
		limit = 1000
	}
	s := shop.Open("shop", limit)
	switch scene {
	case "overload":
		s.Day(1)
		time.AfterFunc(12*time.Second, func() { s.Day(10) })
	case "leak":
		s.Day(0.7)
		for i := range 5 {
			time.AfterFunc(time.Duration(6+5*i)*time.Second, s.Dispute)
		}
	case "slow":
		s.Day(1)
		time.AfterFunc(15*time.Second, func() { s.Server.Slower.Store(14_000) })
	case "deadlock":
		s.Day(0.3)
		time.AfterFunc(10*time.Second, func() {
			for range 40 {
				s.Once(s.Invoice)
			}
		})
	case "down":
		s.Server.Down.Store(true)
		s.Day(1)
	case "many":
		s.Day(60)
	case "rush":
		s.Day(300)
	default:
		s.Day(1)
	}
	if scene == "day" {
		shop.Open("archive", 4)
	}
}
