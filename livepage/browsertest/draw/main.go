// Command draw draws the live page for the documents: a shop whose exports leak their connections,
// until callers wait. With an address, it draws that page instead, as it is.
//
//	draw <folder>
//	draw <address> <file.png> <width> <height> [dark]
package main

import (
	"context"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sqllease/sqllease/livepage"
	"github.com/sqllease/sqllease/livepage/browsertest/browser"
	"github.com/sqllease/sqllease/livepage/browsertest/shop"
)

func main() {
	log.SetFlags(0)
	ctx, cancel, err := browser.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer cancel()
	switch len(os.Args) {
	case 2:
		err = documents(ctx, os.Args[1])
	case 5, 6:
		width, _ := strconv.ParseInt(os.Args[3], 10, 64)
		height, _ := strconv.ParseInt(os.Args[4], 10, 64)
		err = draw(ctx, os.Args[1], os.Args[2], width, height, slices.Contains(os.Args, "dark"))
	default:
		log.Fatal("draw <folder>, or draw <address> <file.png> <width> <height> [dark]")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// documents draws what the documents have.
func documents(ctx context.Context, folder string) error {
	s := shop.Open("shop", 8)
	defer s.Close()
	server := httptest.NewServer(livepage.Handler(livepage.Pools(s.Pool)))
	defer server.Close()
	defer server.CloseClientConnections() // of the page that the browser still has
	s.Day(0.9)
	for _, at := range []time.Duration{22, 31, 40, 48, 54} {
		time.AfterFunc(at*time.Second, s.Dispute)
	}
	time.Sleep(72 * time.Second)
	s.Day(1.6)
	time.Sleep(6 * time.Second)
	for _, scheme := range []string{"light", "dark"} {
		if err := draw(ctx, server.URL+"/?span=1m", filepath.Join(folder, "livepage-"+scheme+".png"), 1100, 940, scheme == "dark"); err != nil {
			return err
		}
	}
	return nil
}

func draw(ctx context.Context, address, file string, width, height int64, dark bool) error {
	var picture []byte
	err := chromedp.Run(ctx, browser.Look(width, height, dark), chromedp.Navigate(address), chromedp.WaitVisible(".sentence"), chromedp.Sleep(1500*time.Millisecond), chromedp.CaptureScreenshot(&picture))
	if err != nil {
		return err
	}
	return os.WriteFile(file, picture, 0o644) //nolint:gosec // anybody may see it
}
