package wire

import "fmt"

// NotifyType is the type of a Notify payload; values below 16384 are errors (RFC 7296 3.10.1).
type NotifyType uint16

// IsError reports whether the type is in the range of error types.
func (n NotifyType) IsError() bool { return n < 16384 }

// The notify types, with their IANA numbers.
const (
	NotifyUnsupportedCriticalPayload    NotifyType = 1
	NotifyInvalidIKESPI                 NotifyType = 4
	NotifyInvalidMajorVersion           NotifyType = 5
	NotifyInvalidSyntax                 NotifyType = 7
	NotifyInvalidMessageID              NotifyType = 9
	NotifyInvalidSPI                    NotifyType = 11
	NotifyNoProposalChosen              NotifyType = 14
	NotifyInvalidKEPayload              NotifyType = 17
	NotifyAuthenticationFailed          NotifyType = 24
	NotifySinglePairRequired            NotifyType = 34
	NotifyNoAdditionalSAs               NotifyType = 35
	NotifyInternalAddressFailure        NotifyType = 36
	NotifyFailedCPRequired              NotifyType = 37
	NotifyTSUnacceptable                NotifyType = 38
	NotifyInvalidSelectors              NotifyType = 39
	NotifyUnacceptableAddresses         NotifyType = 40
	NotifyUnexpectedNATDetected         NotifyType = 41
	NotifyUseAssignedHoA                NotifyType = 42
	NotifyTemporaryFailure              NotifyType = 43
	NotifyChildSANotFound               NotifyType = 44
	NotifyInvalidGroupID                NotifyType = 45
	NotifyAuthorizationFailed           NotifyType = 46
	NotifyStateNotFound                 NotifyType = 47
	NotifyTSMaxQueue                    NotifyType = 48
	NotifyRegistrationFailed            NotifyType = 49
	NotifyInitialContact                NotifyType = 16384
	NotifySetWindowSize                 NotifyType = 16385
	NotifyAdditionalTSPossible          NotifyType = 16386
	NotifyIPCOMPSupported               NotifyType = 16387
	NotifyNATDetectionSourceIP          NotifyType = 16388
	NotifyNATDetectionDestinationIP     NotifyType = 16389
	NotifyCookie                        NotifyType = 16390
	NotifyUseTransportMode              NotifyType = 16391
	NotifyHTTPCertLookup                NotifyType = 16392
	NotifyRekeySA                       NotifyType = 16393
	NotifyESPTFCPaddingNotSupported     NotifyType = 16394
	NotifyNonFirstFragmentsAlso         NotifyType = 16395
	NotifyMOBIKESupported               NotifyType = 16396
	NotifyAdditionalIP4Address          NotifyType = 16397
	NotifyAdditionalIP6Address          NotifyType = 16398
	NotifyNoAdditionalAddresses         NotifyType = 16399
	NotifyUpdateSAAddresses             NotifyType = 16400
	NotifyCookie2                       NotifyType = 16401
	NotifyNoNATsAllowed                 NotifyType = 16402
	NotifyAuthLifetime                  NotifyType = 16403
	NotifyMultipleAuthSupported         NotifyType = 16404
	NotifyAnotherAuthFollows            NotifyType = 16405
	NotifyRedirectSupported             NotifyType = 16406
	NotifyRedirect                      NotifyType = 16407
	NotifyRedirectedFrom                NotifyType = 16408
	NotifyTicketLTOpaque                NotifyType = 16409
	NotifyTicketRequest                 NotifyType = 16410
	NotifyTicketAck                     NotifyType = 16411
	NotifyTicketNack                    NotifyType = 16412
	NotifyTicketOpaque                  NotifyType = 16413
	NotifyLinkID                        NotifyType = 16414
	NotifyUseWESPMode                   NotifyType = 16415
	NotifyROHC                          NotifyType = 16416
	NotifyEAPOnlyAuthentication         NotifyType = 16417
	NotifyChildlessIKEv2Supported       NotifyType = 16418
	NotifyQuickCrashDetection           NotifyType = 16419
	NotifyMessageIDSyncSupported        NotifyType = 16420
	NotifyReplayCounterSyncSupported    NotifyType = 16421
	NotifyMessageIDSync                 NotifyType = 16422
	NotifyReplayCounterSync             NotifyType = 16423
	NotifySecurePasswordMethods         NotifyType = 16424
	NotifyPSKPersist                    NotifyType = 16425
	NotifyPSKConfirm                    NotifyType = 16426
	NotifyERX                           NotifyType = 16427
	NotifyIFOM                          NotifyType = 16428
	NotifyGroupSender                   NotifyType = 16429
	NotifyFragmentationSupported        NotifyType = 16430
	NotifySignatureHashAlgorithms       NotifyType = 16431
	NotifyCloneIKESASupported           NotifyType = 16432
	NotifyCloneIKESA                    NotifyType = 16433
	NotifyPuzzle                        NotifyType = 16434
	NotifyUsePPK                        NotifyType = 16435
	NotifyPPKIdentity                   NotifyType = 16436
	NotifyNoPPKAuth                     NotifyType = 16437
	NotifyIntermediateExchangeSupported NotifyType = 16438
	NotifyIP4Allowed                    NotifyType = 16439
	NotifyIP6Allowed                    NotifyType = 16440
	NotifyAdditionalKeyExchange         NotifyType = 16441
	NotifyUseAGGFRAG                    NotifyType = 16442
	NotifySupportedAuthMethods          NotifyType = 16443
	NotifySAResourceInfo                NotifyType = 16444
	NotifyUsePPKInt                     NotifyType = 16445
	NotifyPPKIdentityKey                NotifyType = 16446
	NotifyFullTranscriptAuth            NotifyType = 16447 // draft-ietf-ipsecme-ikev2-downgrade-prevention
)

// String gives the IANA name.
func (n NotifyType) String() string {
	switch n {
	case NotifyUnsupportedCriticalPayload:
		return "UNSUPPORTED_CRITICAL_PAYLOAD"
	case NotifyInvalidIKESPI:
		return "INVALID_IKE_SPI"
	case NotifyInvalidMajorVersion:
		return "INVALID_MAJOR_VERSION"
	case NotifyInvalidSyntax:
		return "INVALID_SYNTAX"
	case NotifyInvalidMessageID:
		return "INVALID_MESSAGE_ID"
	case NotifyInvalidSPI:
		return "INVALID_SPI"
	case NotifyNoProposalChosen:
		return "NO_PROPOSAL_CHOSEN"
	case NotifyInvalidKEPayload:
		return "INVALID_KE_PAYLOAD"
	case NotifyAuthenticationFailed:
		return "AUTHENTICATION_FAILED"
	case NotifySinglePairRequired:
		return "SINGLE_PAIR_REQUIRED"
	case NotifyNoAdditionalSAs:
		return "NO_ADDITIONAL_SAS"
	case NotifyInternalAddressFailure:
		return "INTERNAL_ADDRESS_FAILURE"
	case NotifyFailedCPRequired:
		return "FAILED_CP_REQUIRED"
	case NotifyTSUnacceptable:
		return "TS_UNACCEPTABLE"
	case NotifyInvalidSelectors:
		return "INVALID_SELECTORS"
	case NotifyUnacceptableAddresses:
		return "UNACCEPTABLE_ADDRESSES"
	case NotifyUnexpectedNATDetected:
		return "UNEXPECTED_NAT_DETECTED"
	case NotifyUseAssignedHoA:
		return "USE_ASSIGNED_HoA"
	case NotifyTemporaryFailure:
		return "TEMPORARY_FAILURE"
	case NotifyChildSANotFound:
		return "CHILD_SA_NOT_FOUND"
	case NotifyInvalidGroupID:
		return "INVALID_GROUP_ID"
	case NotifyAuthorizationFailed:
		return "AUTHORIZATION_FAILED"
	case NotifyStateNotFound:
		return "STATE_NOT_FOUND"
	case NotifyTSMaxQueue:
		return "TS_MAX_QUEUE"
	case NotifyRegistrationFailed:
		return "REGISTRATION_FAILED"
	case NotifyInitialContact:
		return "INITIAL_CONTACT"
	case NotifySetWindowSize:
		return "SET_WINDOW_SIZE"
	case NotifyAdditionalTSPossible:
		return "ADDITIONAL_TS_POSSIBLE"
	case NotifyIPCOMPSupported:
		return "IPCOMP_SUPPORTED"
	case NotifyNATDetectionSourceIP:
		return "NAT_DETECTION_SOURCE_IP"
	case NotifyNATDetectionDestinationIP:
		return "NAT_DETECTION_DESTINATION_IP"
	case NotifyCookie:
		return "COOKIE"
	case NotifyUseTransportMode:
		return "USE_TRANSPORT_MODE"
	case NotifyHTTPCertLookup:
		return "HTTP_CERT_LOOKUP"
	case NotifyRekeySA:
		return "REKEY_SA"
	case NotifyESPTFCPaddingNotSupported:
		return "ESP_TFC_PADDING_NOT_SUPPORTED"
	case NotifyNonFirstFragmentsAlso:
		return "NON_FIRST_FRAGMENTS_ALSO"
	case NotifyMOBIKESupported:
		return "MOBIKE_SUPPORTED"
	case NotifyAdditionalIP4Address:
		return "ADDITIONAL_IP4_ADDRESS"
	case NotifyAdditionalIP6Address:
		return "ADDITIONAL_IP6_ADDRESS"
	case NotifyNoAdditionalAddresses:
		return "NO_ADDITIONAL_ADDRESSES"
	case NotifyUpdateSAAddresses:
		return "UPDATE_SA_ADDRESSES"
	case NotifyCookie2:
		return "COOKIE2"
	case NotifyNoNATsAllowed:
		return "NO_NATS_ALLOWED"
	case NotifyAuthLifetime:
		return "AUTH_LIFETIME"
	case NotifyMultipleAuthSupported:
		return "MULTIPLE_AUTH_SUPPORTED"
	case NotifyAnotherAuthFollows:
		return "ANOTHER_AUTH_FOLLOWS"
	case NotifyRedirectSupported:
		return "REDIRECT_SUPPORTED"
	case NotifyRedirect:
		return "REDIRECT"
	case NotifyRedirectedFrom:
		return "REDIRECTED_FROM"
	case NotifyTicketLTOpaque:
		return "TICKET_LT_OPAQUE"
	case NotifyTicketRequest:
		return "TICKET_REQUEST"
	case NotifyTicketAck:
		return "TICKET_ACK"
	case NotifyTicketNack:
		return "TICKET_NACK"
	case NotifyTicketOpaque:
		return "TICKET_OPAQUE"
	case NotifyLinkID:
		return "LINK_ID"
	case NotifyUseWESPMode:
		return "USE_WESP_MODE"
	case NotifyROHC:
		return "ROHC"
	case NotifyEAPOnlyAuthentication:
		return "EAP_ONLY_AUTHENTICATION"
	case NotifyChildlessIKEv2Supported:
		return "CHILDLESS_IKEV2_SUPPORTED"
	case NotifyQuickCrashDetection:
		return "QUICK_CRASH_DETECTION"
	case NotifyMessageIDSyncSupported:
		return "MESSAGE_ID_SYNC_SUPPORTED"
	case NotifyReplayCounterSyncSupported:
		return "REPLAY_COUNTER_SYNC_SUPPORTED"
	case NotifyMessageIDSync:
		return "MESSAGE_ID_SYNC"
	case NotifyReplayCounterSync:
		return "REPLAY_COUNTER_SYNC"
	case NotifySecurePasswordMethods:
		return "SECURE_PASSWORD_METHODS"
	case NotifyPSKPersist:
		return "PSK_PERSIST"
	case NotifyPSKConfirm:
		return "PSK_CONFIRM"
	case NotifyERX:
		return "ERX"
	case NotifyIFOM:
		return "IFOM"
	case NotifyGroupSender:
		return "GROUP_SENDER"
	case NotifyFragmentationSupported:
		return "IKEV2_FRAGMENTATION_SUPPORTED"
	case NotifySignatureHashAlgorithms:
		return "SIGNATURE_HASH_ALGORITHMS"
	case NotifyCloneIKESASupported:
		return "CLONE_IKE_SA_SUPPORTED"
	case NotifyCloneIKESA:
		return "CLONE_IKE_SA"
	case NotifyPuzzle:
		return "PUZZLE"
	case NotifyUsePPK:
		return "USE_PPK"
	case NotifyPPKIdentity:
		return "PPK_IDENTITY"
	case NotifyNoPPKAuth:
		return "NO_PPK_AUTH"
	case NotifyIntermediateExchangeSupported:
		return "INTERMEDIATE_EXCHANGE_SUPPORTED"
	case NotifyIP4Allowed:
		return "IP4_ALLOWED"
	case NotifyIP6Allowed:
		return "IP6_ALLOWED"
	case NotifyAdditionalKeyExchange:
		return "ADDITIONAL_KEY_EXCHANGE"
	case NotifyUseAGGFRAG:
		return "USE_AGGFRAG"
	case NotifySupportedAuthMethods:
		return "SUPPORTED_AUTH_METHODS"
	case NotifySAResourceInfo:
		return "SA_RESOURCE_INFO"
	case NotifyUsePPKInt:
		return "USE_PPK_INT"
	case NotifyPPKIdentityKey:
		return "PPK_IDENTITY_KEY"
	case NotifyFullTranscriptAuth:
		return "IKE_SA_INIT_FULL_TRANSCRIPT_AUTH"
	}
	return fmt.Sprintf("NOTIFY(%d)", uint16(n))
}
